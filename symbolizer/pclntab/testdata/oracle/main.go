// Oracle prints what the runtime says about every code address of this very program, for the tests of pclntab to compare with.
//
//	@401000              the ELF address from which on, byte by byte, the lines below hold
//	function \t file \t line \t start line \t the kind of the address: "ok" or "edge"
//
// Innermost first. At an edge, the last byte of a function, the runtime cannot be asked for more than the innermost line. No line
// means that there is no Go function.
package main

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"

	"oracle/expand"
	"oracle/shapes"
)

func main() {
	shapes.Run(os.Args)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = json.Marshal(os.Args) // more code to ask about
}

func run() error {
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(out, "#", runtime.Version())
	start, end, bias, err := code()
	if err != nil {
		return err
	}
	before := ""
	for pc := start; pc < end; pc++ {
		if now := describe(pc); now != before {
			before = now
			fmt.Fprintf(out, "@%x\n%s", pc-bias, now)
		}
	}
	fmt.Fprintf(out, "@%x\n", end-bias)
	return out.Flush()
}

// code finds the executable mapping of this program and its load bias.
func code() (start, end, bias uintptr, err error) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return 0, 0, 0, err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, 0, 0, err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, 0, 0, err
	}
	for _, line := range strings.Split(string(maps), "\n") {
		var offset uint64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x", &start, &end, &perm, &offset); err != nil || perm != "r-xp" || !strings.HasSuffix(line, exe) {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
				vaddr := uintptr(p.Vaddr + offset - p.Off)
				// The mapping's last page is padded with what follows in the file.
				return start, start + uintptr(p.Vaddr+p.Filesz) - vaddr, start - vaddr, nil
			}
		}
	}
	return 0, 0, 0, fmt.Errorf("no executable mapping of %s", exe)
}

func describe(pc uintptr) string {
	fn := runtime.FuncForPC(pc)
	if fn == nil {
		return ""
	}
	next := runtime.FuncForPC(pc + 1)
	if next == nil || next.Entry() != fn.Entry() {
		file, line := fn.FileLine(pc)
		return fmt.Sprintf("%s\t%s\t%d\t0\tedge\n", fn.Name(), file, line)
	}
	var b strings.Builder
	for _, pc := range expand.Final([]uintptr{pc + 1}) {
		frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
		startLine := int64(0)
		if v := reflect.ValueOf(frame).FieldByName("startLine"); v.IsValid() { // from Go 1.20
			startLine = v.Int()
		}
		fmt.Fprintf(&b, "%s\t%s\t%d\t%d\tok\n", frame.Function, frame.File, frame.Line, startLine)
	}
	return b.String()
}
