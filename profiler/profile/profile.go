// Package profile is the data model of what was sampled: an immutable Profile
// of samples, each with a stack for the kernel and one for the user side, and
// the Builder that adds samples up.
//
// Everything that many samples share (functions, locations, mappings, stacks,
// labels) is interned by whoever builds the profile and compared by pointer.
// Nothing that a Profile points to is changed after it was built, so it may be
// read by any number of goroutines.
package profile

import (
	"cmp"
	"path"
	"time"
)

// Type says what the value of a sample means.
type Type struct {
	Name string `json:"name"` // such as "cpu"
	Unit string `json:"unit"` // such as "nanoseconds"
}

// Types of values.
var (
	TypeCPU     = Type{Name: "cpu", Unit: "nanoseconds"}
	TypeCycles  = Type{Name: "cycles", Unit: "count"}
	TypeSamples = Type{Name: "samples", Unit: "count"} // how many there were, where no other value is known
)

// Profile is what was sampled in one span of time.
type Profile struct {
	Type     Type
	Start    time.Time
	Duration time.Duration
	// Period is the distance of two samples, in the unit of Type; 0 where it varies.
	Period  int64
	Samples []Sample
	Account Account
	// Foreign says that it was read from what another program wrote, which does not tell which stacks are whole.
	Foreign bool
}

// Account says where every sample of the span went:
// Taken = Exported + Filtered + the sum of Lost. Each term is counted where it happens.
type Account struct {
	Taken    uint64
	Exported uint64
	// Filtered were taken, but are not what this profile asked for, or what any is to have.
	Filtered uint64
	Lost     []Loss
}

// Loss is a number of samples by reason, in the words of bpf.Reason.
type Loss struct {
	Reason string
	Count  uint64
}

// Sample is all samples with the same stacks and labels.
type Sample struct {
	Kernel *Stack // nil: user mode
	User   *Stack // nil: a kernel thread
	Labels *Labels
	Count  int64
	Value  int64 // in the unit of the profile's Type
	// Times are when its samples were taken, counted from the profile's Start, in no order: Count
	// of them, or nil where they were not kept.
	Times []time.Duration
}

// Stack is one side of a stack.
type Stack struct {
	// Locations, innermost first.
	Locations []*Location
	// Truncated says why callers are missing beyond the last location ("" where
	// none are known to be), such as "unmapped_pc".
	Truncated string
	// Root says that the walk reached the function that nobody called: it knows, whether that has a name or not.
	Root bool
}

// FrameKind says what sort of code a location is in.
type FrameKind string

// Kinds of frames, in the words of OpenTelemetry's profile.frame.type.
const (
	FrameKernel FrameKind = "kernel"
	FrameNative FrameKind = "native"
	FrameGo     FrameKind = "go"
	FrameJIT    FrameKind = "jit"
)

// Location is one address in one file (or the kernel): where a stack passed through.
type Location struct {
	Kind    FrameKind
	Mapping *Mapping
	// Address is the ELF virtual address (or that of the kernel, or of JIT
	// code), already moved into the call instruction for return addresses.
	Address uint64
	// Lines are the functions at the address: those inlined there first, the
	// one they were inlined into last. At least one.
	Lines []Line
	// Unnamed says why no function is known ("" where one is), such as "no_symbol".
	// The one line then holds what is known: "[libc.so.6+0x29d90]", where in the file its function starts, or if the file does not
	// tell that, where the location itself is.
	Unnamed string
	// Wrapper marks code that a compiler made up, which stands in a stack only as its leaf.
	Wrapper bool
}

// Line is a position in the source.
type Line struct {
	Function *Function
	Line     int // 0: unknown
}

// Function is a function as its file names it.
type Function struct {
	Name      string // linkage name, not demangled
	File      string // "" where unknown
	StartLine int    // 0: unknown
}

// Mapping is one executable file (not its place in one process): frames are equal across processes.
type Mapping struct {
	Path    string
	BuildID string // hexadecimal, "" where there is none
	// EndsHash is a hash of the file's ends and its length, hexadecimal (OpenTelemetry's htlhash); "" where the file was not read.
	EndsHash string
	// Start and Limit are the ELF addresses of the executable segment, Offset its place in the file.
	Start, Limit, Offset uint64
	// HasFunctions, HasLines say what the file could be asked for.
	HasFunctions, HasLines bool
}

// Labels say whose sample it was. Equal labels of one profile are one pointer.
type Labels struct {
	PID         int
	TID         int      // 0 unless samples are kept apart by thread
	Comm        string   // name of the process: its group leader's
	Thread      string   // name of the thread
	Exe         string   // path of the executable, as the process sees it
	Cgroup      string   // path below the hierarchy's root, of the most telling hierarchy
	Cgroups     []string // of all hierarchies
	ContainerID string
	PodUID      string // of the Kubernetes pod
	Unit        string // the systemd unit, such as "nginx.service"
	// Service is the service that the process is part of, where something tells it that is better than the name of a program; see ServiceName.
	Service string
	// Resource is what else the process says of itself, in the order of its keys. It is shared, and not changed.
	Resource []Attribute
	// TraceID and SpanID are of the span that the thread worked for, in lower-case hexadecimal of 32 and 16 digits; "" where it
	// worked for none, or the process does not tell.
	TraceID, SpanID string
	// Further labels are what the program itself calls what it worked for, such as labels of runtime/pprof, as far as there is room for them. They are
	// in any order, and may be called as one of the above.
	Further []Attribute
}

// Attribute is what a program says of itself, such as service.version, or of what it works for, such as http.route.
type Attribute struct{ Key, Value string }

// ServiceName is what the process is called by: its service, or else the name of its executable, or else its own. "" where nothing is known.
func (l *Labels) ServiceName() string { return cmp.Or(l.Service, ProgramName(l.Exe, l.Comm)) }

// ProgramName is that of the executable at a path, or else that of the process.
func ProgramName(exe, comm string) string {
	if exe != "" {
		return path.Base(exe)
	}
	return comm
}
