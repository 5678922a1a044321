package web

import (
	"strings"

	"github.com/pilotlight/pilotlight/bpf"
)

// reason explains why something is missing.
type reason struct {
	Reason string `json:"reason"`
	Title  string `json:"title"` // such as "ring full"
	// Loses is what is missing: the "sample", its "stack" or a part of that, or a "name".
	Loses   string `json:"loses"`
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"`
}

// reasons are those of bpf.Reason, in its order.
var reasons = func() (list []reason) {
	for r := bpf.ReasonNone + 1; int(r) < bpf.ReasonCount; r++ {
		text := explanations[r]
		list = append(list, reason{r.String(), strings.ReplaceAll(r.String(), "_", " "), text.loses, text.meaning, text.remedy})
	}
	return list
}()

var explanations = [bpf.ReasonCount]struct{ loses, meaning, remedy string }{
	bpf.ReasonRingFull: {"sample", "The ring buffer between the kernel and the agent had no room.",
		"Give the agent more CPU (a cgroup's cpu.max may hold it back), or sample less often with -F."},
	bpf.ReasonBadRecord: {"sample", "A record from the kernel had another size than agreed.",
		"This is a defect of the agent: please report it, with the output of pilotlight doctor."},
	bpf.ReasonStackMapFull: {"stack", "The kernel refused to keep the stack.",
		"Sample less often with -F, or fewer processes: more different stacks come than fit."},
	bpf.ReasonStackEvicted: {"stack", "The stack was pushed out of the kernel's map before the agent read it.",
		"Give the agent more CPU, or sample less often with -F."},
	bpf.ReasonUserUnreadable: {"stack", "The kernel could not give the registers of the process.",
		"None: the sample was taken while the process was starting or ending."},
	bpf.ReasonKernelUnreadable: {"stack", "The kernel could not walk its own stack.",
		"None for single samples; if it is all of them, pilotlight doctor says what the kernel lacks."},
	bpf.ReasonMaxDepth: {"stack", "The stack is deeper than 1,024 frames; its innermost part is shown.",
		"None: look for unbounded recursion. Collapse recursion in the graph to read it."},
	bpf.ReasonUnmappedPC: {"stack", "The walk came to an address where no code is mapped.",
		"Usually code that a runtime generated or that changes the stack by hand; if it is one program, build it with frame pointers (-fno-omit-frame-pointer)."},
	bpf.ReasonNoTable: {"stack", "The file holds no unwind table.",
		"Build it with -fasynchronous-unwind-tables, and do not strip .eh_frame; pilotlight doctor unwind FILE tells what it holds."},
	bpf.ReasonTablePending: {"stack", "The unwind table of the file was not compiled yet.",
		"None: it is over within seconds of the program's start."},
	bpf.ReasonNoRule: {"stack", "The unwind table does not cover that code, such as hand-written assembly.",
		"pilotlight doctor unwind FILE lists the code without rules; .cfi directives in its source mend it."},
	bpf.ReasonUnknownRegister: {"stack", "The caller's frame depends on a register whose value is not known there.",
		"None from outside; in the program's own code, build with frame pointers (-fno-omit-frame-pointer)."},
	bpf.ReasonStackUnreadable: {"stack", "A part of the stack is not in memory, or is none.",
		"None for single samples; under memory pressure less swapping brings them back."},
	bpf.ReasonNotAdvancing: {"stack", "The caller's frame would begin before the callee's: the stack or its table is broken.",
		"pilotlight doctor unwind FILE shows the rule in use; a library built by an old assembler may be at fault."},
	bpf.ReasonCompatTask: {"stack", "The process is a 32-bit program, whose stacks are not walked.",
		"None but a 64-bit build of the program."},
	bpf.ReasonColdLimited: {"stack", "Too many stacks of a process that had just started, or of code that is not known yet, in one second.",
		"None: it is over within seconds of the program's start."},
	bpf.ReasonStaleMapping: {"name", "What was mapped at the time of the sample is not known any more.",
		"None for single samples: the process changed its mappings while it was sampled. More CPU for the agent makes them fewer."},
	bpf.ReasonProcessUnknown: {"name", "The process was gone before anything was known of it.",
		"Give the agent more CPU; a process that lives less than a millisecond may always be lost."},
	bpf.ReasonFileGone: {"name", "The mapped file could not be opened any more.",
		"None: it was deleted with its container or file system. Files that stay are read."},
	bpf.ReasonFileUnreadable: {"name", "The mapped file is no ELF file that can be read.",
		"Look at the file: it may be damaged, or packed. pilotlight doctor tells whether rights are missing."},
	bpf.ReasonNoSymbol: {"name", "Nothing in the file names the address.",
		"Install the debug symbols of the package (on Debian its -dbgsym), or do not strip the binary."},
	bpf.ReasonHistoryFull: {"stack", "The history keeps so many different stacks of a date, and so many of one program, and not more.",
		"Find the program that makes up new code or names all the time: the agent's log names the first. Live views show its stacks."},
	bpf.ReasonHistoryDamaged: {"stack", "The file of the history that held the stack cannot be read.",
		"Look at the disk: the agent's log and the answer's warnings name the file and the place in it."},
	bpf.ReasonHistoryRare: {"stack", "The answer would have had too many different stacks: those with the fewest samples are left out of it.",
		"Ask for a shorter time or a narrower filter."},
}
