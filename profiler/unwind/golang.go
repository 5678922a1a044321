package unwind

import (
	"errors"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
	"github.com/pilotlight/pilotlight/symbolizer/pclntab"
)

// addGo adds the functions of a Go binary, stripped or not, from the table by which its runtime unwinds: how far each has moved the
// stack pointer, at each of its instructions. They come before those of DWARF, which does not say where frame pointers are saved.
//
//	x86-64   return address      CFA-8       arm64   ...                   CFA = sp + depth
//	         saved rbp           CFA-16              saved x30             sp
//	         ...                                     saved x29             sp-8
//	         CFA = rsp + depth + 8
func (c *compiler) addGo() error {
	table, err := pclntab.Open(c.file)
	if errors.Is(err, pclntab.ErrNone) {
		return nil
	} else if err != nil {
		c.stats.Damage = append(c.stats.Damage, err)
		return nil
	}
	before := len(c.functions)
	var entry objfile.Address // of the last function
	tooMany := false
	var then arrival
	var switched uint32 // bytes after entry
	err = table.Stacks(func(s pclntab.Stack) bool {
		off, room, ok := c.place(s.Start)
		if !ok {
			return true
		}
		length := min(uint64(s.End-s.Start), room)
		if tooMany = len(c.stacks) >= maxRows || len(c.functions) >= maxFunctions; tooMany {
			return false
		}
		if len(c.functions) == before || entry != s.Entry || off != c.functions[len(c.functions)-1].end() {
			c.functions = append(c.functions, function{start: off, addr: s.Start, kind: goFunction, from: uint32(len(c.stacks))})
			if entry != s.Entry && s.Switches {
				then, switched = c.arrivalOf(&s)
			}
			entry = s.Entry
		}
		f := &c.functions[len(c.functions)-1]
		f.length = uint32(min(uint64(off-f.start)+length, maxSpan))
		skip, before := uint32(off-f.start), uint32(0)
		add := func(skip uint32, by arrival) { c.stacks = append(c.stacks, goStack{skip, s.Depth, by}) }
		switch {
		case s.Outermost:
			add(skip, outermost)
		case !s.Switches:
			add(skip, byDepth)
		default:
			if at := uint64(s.Start - s.Entry); at < uint64(switched) {
				before = uint32(min(uint64(switched)-at, length))
				add(skip, byDepth)
			}
			if uint64(before) < length {
				add(skip+before, then)
			}
		}
		f.to = uint32(len(c.stacks))
		return true
	})
	if tooMany {
		return tooLarge("more than %d functions or %d rows of Go", maxFunctions, maxRows)
	}
	if err != nil {
		c.stats.Damage = append(c.stats.Damage, err)
	}
	if len(c.functions) > before {
		c.stats.Sources = append(c.stats.Sources, "pclntab")
	}
	return nil
}

// A goStack is a stretch of a function, from skip bytes after its start on. There are many.
type goStack struct {
	skip  uint32
	depth int32
	by    arrival
}

func (c *compiler) goRule(s goStack) Rule {
	r := c.roles
	rule := Rule{Kind: Step, CFABase: r.sp, Offset: s.depth}
	switch {
	case s.by == outermost:
		return Rule{Kind: Outermost}
	case s.by == toGoroutine && c.goroutine.Kind == Goroutine:
		return c.goroutine
	case s.by != byDepth:
		return Rule{Kind: StackSwitch, CFABase: r.fp, Offset: 2 * word, ReturnAddress: fromCFA(-word), FP: fromCFA(-2 * word)}
	case r.linked && s.depth > 0:
		rule.ReturnAddress, rule.FP = fromCFA(-s.depth), fromCFA(-s.depth-word)
	case !r.linked:
		rule.Offset += word
		rule.ReturnAddress = fromCFA(-word)
		if s.depth > 0 {
			rule.FP = fromCFA(-2 * word)
		}
	}
	return rule
}
