// Command vm boots Debian's kernels in emulated machines and runs the tests there, on the whole machine.
//
//	go run ./test/vm                          the matrix, two machines at a time (as root; `make test-vm`)
//	go run ./test/vm -kernel 6.1 -run TestX   one test on one kernel (`make test-vm KERNEL=6.1 RUN=TestX`)
//	go run ./test/vm -json                    as test events, for `make test`
//	go run ./test/vm -loads                   what loading the programs costs, for `make bench`
//
// It needs Debian's qemu-system (9 or newer), cpio and cross compilers; test/setup.sh installs them. Kernels are kept in the
// user's cache folder. What each machine said is in build/vm, each line behind the CPU seconds that its emulator had taken by then: what a
// test costs, whatever else the host did.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const folder = "build/vm"

// atOnce machines run; each takes one CPU.
const atOnce = 2

func main() {
	kernelName := flag.String("kernel", "", "only this version, such as 6.1")
	architecture := flag.String("arch", "", "only this architecture; with -kernel amd64 unless given")
	only := flag.String("run", "", "only tests that match this regular expression")
	parameters := flag.String("append", "", "further kernel parameters")
	readme := flag.String("table", "", "write or check: what README says of kernels (with the whole matrix)")
	loads := flag.Bool("loads", false, "print what loading the BPF programs costs on each kernel, and nothing else")
	events := flag.Bool("json", false, "print test events as go test -json does")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := runner{only: *only, parameters: *parameters, events: *events, loads: *loads}
	if *loads {
		r.only = "^TestVMLoad$"
	}
	err := r.run(ctx, *kernelName, *architecture)
	if err == nil && *readme != "" && *kernelName+*architecture+*only == "" {
		err = r.table.update("README.md", *readme == "check")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

type runner struct {
	only       string
	parameters string
	events     bool
	loads      bool
	single     bool // one machine, whose lines are shown as they come
	table      table
	output     sync.Mutex
}

func chosen(version, architecture string) ([]kernel, error) {
	if version != "" && architecture == "" {
		architecture = "amd64"
	}
	kernels := slices.DeleteFunc(slices.Clone(matrix), func(k kernel) bool {
		return version != "" && k.version != version || architecture != "" && k.architecture != architecture
	})
	if len(kernels) == 0 {
		return nil, fmt.Errorf("no kernel %s for %s; there are: %v", version, architecture, matrix)
	}
	return kernels, nil
}

func (r *runner) run(ctx context.Context, version, architecture string) error {
	kernels, err := chosen(version, architecture)
	if err != nil {
		return err
	}
	r.single = len(kernels) == 1
	cache, err := cacheFolder()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(kernels))
	free := make(chan struct{}, atOnce)
	// What comes first in the order of the matrix is prepared first; the machines of one architecture run while the other's image is built.
	images := make(map[string]*image)
	for i, k := range kernels {
		files, err := prepare(cache, images, k, r.only)
		if err != nil {
			errs[i] = err
			break
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			errs[i] = r.test(ctx, k, files)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// prepare makes what a machine starts with, and the image of its architecture if that is not there.
func prepare(cache string, images map[string]*image, k kernel, only string) (f machineFiles, err error) {
	if f.kernel, err = k.fetch(cache); err != nil {
		return f, err
	}
	if images[k.architecture] == nil {
		if images[k.architecture], err = newImage(cache, folder, k.architecture); err != nil {
			return f, err
		}
	}
	f.archive, err = images[k.architecture].archive(k.version, k.plan(only))
	return f, err
}

// test runs one machine. What it says is kept, and shown as it comes, as events, or at the end where something failed.
func (r *runner) test(ctx context.Context, k kernel, files machineFiles) error {
	log, err := os.Create(filepath.Join(folder, k.String()+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	var said bytes.Buffer
	c := converter{name: "vm/" + k.String(), enabled: r.events}
	started := time.Now()
	result, err := k.boot(ctx, files, r.parameters, func(line string, spent time.Duration) {
		fmt.Fprintf(log, "%6.1f %s\n", spent.Seconds(), line)
		c.line(line)
		r.table.line(k, line)
		switch _, load, isLoad := strings.Cut(line, "load: "); {
		case r.loads && isLoad:
			r.output.Lock()
			fmt.Printf("%-13s %s\n", k, load)
			r.output.Unlock()
		case r.loads, r.events:
		case r.single:
			fmt.Println(line)
		default:
			fmt.Fprintln(&said, line)
		}
	})
	r.output.Lock()
	defer r.output.Unlock()
	if err := c.close(os.Stdout); err != nil {
		return err
	}
	switch {
	case err != nil:
	case result.failed > 0:
		err = fmt.Errorf("kernel %s: %d tests failed", k, result.failed)
	case result.passed == 0:
		err = fmt.Errorf("kernel %s: no test is named like that", k)
	}
	if err != nil {
		_, _ = io.Copy(os.Stdout, &said)
	}
	if result.line != "" {
		fmt.Fprintln(log, result.line)
		if !r.events && !r.loads {
			fmt.Println(result.line)
		}
	}
	fmt.Fprintf(log, "took %s\n", time.Since(started).Round(time.Second))
	return err
}

// converter turns what a machine says into test events, a package for each of its suites.
type converter struct {
	name    string
	enabled bool
	events  bytes.Buffer
	suite   string
	lines   bytes.Buffer
	err     error
}

func (c *converter) line(line string) {
	if !c.enabled {
		return
	}
	switch fields := strings.Fields(line); {
	case len(fields) > 1 && fields[0] == "run":
		c.suite = strings.TrimSuffix(filepath.Base(fields[1]), ".test")
	case c.suite != "" && len(fields) > 1 && fields[0] == "ran":
		c.flush()
	case c.suite != "":
		fmt.Fprintln(&c.lines, line)
	}
}

func (c *converter) flush() {
	cmd := exec.Command("go", "tool", "test2json", "-p", c.name+"/"+c.suite)
	cmd.Stdin, cmd.Stdout = &c.lines, &c.events
	c.err = errors.Join(c.err, cmd.Run())
	c.suite = ""
	c.lines.Reset()
}

func (c *converter) close(w io.Writer) error {
	if c.suite != "" {
		c.flush() // the machine ended in the middle
	}
	_, err := io.Copy(w, &c.events)
	return errors.Join(c.err, err)
}
