package profile

import (
	"cmp"
	"slices"
	"strings"
)

// Completeness says how much of the stacks is there, weighted by samples.
type Completeness struct {
	Stacks uint64 // samples
	Whole  uint64 // samples whose stack reaches a place where threads begin
	Untold bool   // nobody knows which do, and Whole is 0: the profile is foreign
	Frames uint64 // frames of all samples
	Named  uint64 // of those, frames whose function is known
	// Reasons count samples by what is missing of their stack or names; one
	// sample counts once for each reason.
	Reasons []Loss
}

// Completeness looks at every stack of the profile.
func (p *Profile) Completeness() Completeness {
	c := Completeness{Untold: p.Foreign}
	reasons := make(map[string]uint64)
	for i := range p.Samples {
		s := &p.Samples[i]
		n := uint64(s.Count)
		c.Stacks += n
		if !c.Untold && s.Whole() {
			c.Whole += n
		}
		var found []string
		note := func(reason string) {
			if !slices.Contains(found, reason) {
				found = append(found, reason)
			}
		}
		s.Walk(func(l *Location) {
			c.Frames += n
			if l.Unnamed == "" {
				c.Named += n
			} else {
				note(l.Unnamed)
			}
		}, note)
		for _, reason := range found {
			reasons[reason] += n
		}
	}
	for reason, n := range reasons {
		c.Reasons = append(c.Reasons, Loss{reason, n})
	}
	slices.SortFunc(c.Reasons, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return c
}

// Leaf is the innermost location; nil where there is none.
func (s *Sample) Leaf() *Location {
	for _, side := range []*Stack{s.Kernel, s.User} {
		if side != nil && len(side.Locations) > 0 {
			return side.Locations[0]
		}
	}
	return nil
}

// entries are functions that nothing calls, by names that are reserved to the C
// library and the Go runtime.
var entries = []string{
	"_start", "__libc_start_call_main", "__libc_start_main", "__libc_start_main_impl", "_dl_start_user",
	"runtime.goexit", "runtime.goexit.abi0", "runtime.mstart", "runtime.mstart.abi0",
	"runtime.rt0_go", "runtime.rt0_go.abi0", "_rt0_amd64_linux", "_rt0_arm64_linux",
}

// bases are functions below which no caller is found where they are a stack's
// outermost: what clone returns to is a new stack, and the Go runtime switches to one of its own.
var bases = []string{
	"main", "start_thread", "thread_start", "clone", "clone3", "__clone", "__clone3", "_dl_start",
	"runtime.mcall", "runtime.systemstack", "runtime.systemstack_switch", "runtime.morestack",
}

// Entry says whether the location is a function that nothing calls. What a
// walk finds beyond it is not its caller.
func (l *Location) Entry() bool {
	return (l.Kind == FrameNative || l.Kind == FrameGo) && slices.Contains(entries, l.function())
}

// Main says whether the location may be a C program's main or a thread's start: where
// a walk leads to nothing from there, nothing is missing.
func (l *Location) Main() bool {
	if l.Kind != FrameNative {
		return false
	}
	switch l.function() {
	case "main", "start_thread", "thread_start":
		return true
	}
	return false
}

// function is the name of the outermost function at the location, without a symbol version.
func (l *Location) function() string {
	name, _, _ := strings.Cut(l.Lines[len(l.Lines)-1].Function.Name, "@")
	return name
}

// Whole says whether the stack reaches a place where a process, thread or
// goroutine begins: nothing is missing of it. Of walks that do not know, one that ends a frame above main
// counts, because the caller of main is a local function of libc, which has no name on most hosts.
func (s *Sample) Whole() bool {
	if s.User == nil {
		return s.Kernel != nil && s.Kernel.Truncated == ""
	}
	locations := s.User.Locations
	if s.User.Truncated != "" || len(locations) == 0 {
		return false
	}
	last := locations[len(locations)-1]
	return s.User.Root || last.Entry() || slices.Contains(bases, last.function()) ||
		len(locations) > 1 && locations[len(locations)-2].Main()
}
