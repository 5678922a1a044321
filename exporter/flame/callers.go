package flame

import (
	"slices"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Neighbour is a function that stands next to another one in stacks.
type Neighbour struct {
	Function
	Kind Kind `json:"kind"`
	// Weight is of the samples in which it does. Each counts once for each neighbour, so with recursion the
	// neighbours together may be more than the function.
	Weight Weight `json:"weight"`
}

// Callers are the functions that called those of this name, the heaviest first. That a function calls itself is not listed.
func Callers(p *profile.Profile, name string) []Neighbour { return NewStacks(p).Callers(name) }

// Callees are the functions that those of this name called.
func Callees(p *profile.Profile, name string) []Neighbour { return NewStacks(p).Callees(name) }

// Callers is [Callers].
func (s *Stacks) Callers(name string) []Neighbour { return s.neighbours(name, 1) }

// Callees is [Callees].
func (s *Stacks) Callees(name string) []Neighbour { return s.neighbours(name, -1) }

// neighbours looks step frames further out.
func (s *Stacks) neighbours(name string, step int) []Neighbour {
	found := make(map[int32]*Weight)
	var seen []int32 // of one sample
	var buffer []Frame
	for i := range s.Samples {
		sample := &s.Samples[i]
		stack := s.of(sample, &buffer)
		seen = seen[:0]
		for depth, f := range stack {
			next := depth + step
			if next < 0 || next >= len(stack) || s.list[f.function()].Name != name {
				continue
			}
			neighbour := stack[next].function()
			if slices.Contains(seen, neighbour) || s.list[neighbour].Name == name {
				continue
			}
			seen = append(seen, neighbour)
			if found[neighbour] == nil {
				found[neighbour] = new(Weight)
			}
			found[neighbour].add(sample.Weight)
		}
	}
	list := make([]Neighbour, 0, len(found))
	for function, weight := range found {
		list = append(list, Neighbour{s.list[function], s.kinds[function], *weight})
	}
	slices.SortFunc(list, func(a, b Neighbour) int {
		if order := a.Weight.heavier(b.Weight); order != 0 {
			return order
		}
		return a.Function.compare(b.Function)
	})
	return list
}
