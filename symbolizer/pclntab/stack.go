package pclntab

import (
	"fmt"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// The pairs decoded for the stacks of a binary are bounded by their number for a function, on average, and what one large one may have
// besides. Binaries have seven on average.
const (
	maxStackPairs     = 64
	maxStackPairsOnce = 1 << 16
)

// A Stack is a stretch of a function in which its frame has one size.
type Stack struct {
	Start, End objfile.Address
	// Depth is how many bytes the function has moved the stack pointer down since its first instruction; negative in a few functions of
	// assembly that drop what they were given.
	Depth int32
	// Entry is where the function starts.
	Entry objfile.Address
	// Outermost functions were called by nobody, as far as Go is concerned: runtime.goexit, and where threads start.
	Outermost bool
	// Switches says that the function sets the stack pointer to another stack: its depths are not to be trusted.
	Switches bool
	// Name is the function's, of those that switch.
	Name string
}

// Flags of a func record.
const (
	flagTopFrame = 1 << 0
	flagSPWrite  = 1 << 1
)

// Stacks calls yield for each stretch of each function, in the order of the code. What a table leaves out has no stretch.
//
// Errors wrap [ErrCorrupt]; what was said before is right.
func (t *Table) Stacks(yield func(Stack) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stepper()
	s.budget = maxStackPairsOnce + maxStackPairs*int(t.header.nfunc)
	for i := range t.header.nfunc {
		fn, ok := readFunction(&t.blocks, &t.header, i)
		if !ok {
			return fmt.Errorf("%w: function %d", ErrCorrupt, i)
		}
		stack := Stack{
			Entry: t.text + objfile.Address(fn.entry), Outermost: fn.flag&flagTopFrame != 0, Switches: fn.flag&flagSPWrite != 0,
		}
		if name, ok := t.symbolName(fn.name); ok && stack.Switches {
			stack.Name = string(name)
		}
		more := true
		ok = s.ranges(fn.pcsp, fn.entry, func(from, to uint32, depth int32) bool {
			to = min(to, fn.end)
			if depth == noValue || to <= from {
				return to < fn.end
			}
			stack.Start, stack.End, stack.Depth = t.text+objfile.Address(from), t.text+objfile.Address(to), depth
			more = yield(stack)
			return more && to < fn.end
		})
		if !ok {
			return fmt.Errorf("%w: stack of function %d", ErrCorrupt, i)
		}
		if !more {
			return nil
		}
	}
	return nil
}
