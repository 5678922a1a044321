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
	Frames uint64 // frames of all samples
	Named  uint64 // of those, frames whose function is known
	// Reasons count samples by what is missing of their stack or names; one
	// sample counts once for each reason.
	Reasons []Loss
}

// Completeness looks at every stack of the profile.
func (p *Profile) Completeness() Completeness {
	var c Completeness
	reasons := make(map[string]uint64)
	for i := range p.Samples {
		s := &p.Samples[i]
		n := uint64(s.Count)
		c.Stacks += n
		if s.Whole() {
			c.Whole += n
		}
		var found []string
		truncated := s.Walk(func(l *Location) {
			c.Frames += n
			if l.Unnamed == "" {
				c.Named += n
			} else if !slices.Contains(found, l.Unnamed) {
				found = append(found, l.Unnamed)
			}
		})
		if truncated != "" {
			found = append(found, truncated)
		}
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

// roots are functions that nothing calls: where processes, threads and goroutines begin.
var roots = []string{
	"_start", "__libc_start_call_main", "__libc_start_main", "__libc_start_main_impl", "start_thread", "clone", "clone3",
	"__clone", "__clone3", "thread_start", "_dl_start_user", "_dl_start",
	"runtime.goexit", "runtime.goexit.abi0", "runtime.mstart", "runtime.mstart.abi0", "runtime.mcall", "runtime.systemstack", "runtime.morestack",
	"runtime.rt0_go", "runtime.rt0_go.abi0", "_rt0_amd64_linux", "_rt0_arm64_linux",
}

// Whole says whether the stack reaches a root: nothing is missing of it. A stack that ends one
// frame above main counts, because the caller of main is a local function of
// libc, which has no name on most hosts.
func (s *Sample) Whole() bool {
	if s.User == nil || s.User.Truncated != "" && len(s.User.Locations) == 0 {
		return s.User == nil && s.Kernel != nil && s.Kernel.Truncated == ""
	}
	locations := s.User.Locations
	for i := len(locations) - 1; i >= 0 && i >= len(locations)-2; i-- {
		lines := locations[i].Lines
		name, _, _ := strings.Cut(lines[len(lines)-1].Function.Name, "@")
		if name == "main" || slices.Contains(roots, name) {
			return true
		}
	}
	return false
}
