package unwind

import (
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A builder makes a table of rules that come in the order of their file offsets.
type builder struct {
	table *Table
	codes map[Rule]uint32 // of the rules that stand in the table

	last uint32 // the code that holds

	// packed is the rule that code was made of last: neighbours are often equal.
	packed Rule
	code   uint32
}

func newBuilder(m objfile.Machine, start objfile.FileOffset) *builder {
	start &^= blockBytes - 1
	t := &Table{machine: m, codec: codecOf(m), start: start}
	return &builder{table: t, codes: make(map[Rule]uint32), last: codeGap}
}

// add lets a rule hold from off on, which is not before that of the last call.
func (b *builder) add(off objfile.FileOffset, r Rule) error {
	if r != b.packed {
		code, err := b.encode(r)
		if err != nil {
			return err
		}
		b.packed, b.code = r, code
	}
	if b.code == b.last {
		return nil
	}
	if err := b.reach(off); err != nil {
		return err
	}
	t := b.table
	row := uint32(off-t.start)<<codeBits | b.code
	first, n := int(t.index[len(t.index)-1]), len(t.rows)
	switch {
	case n == first || t.rows[n-1]>>codeBits != row>>codeBits:
		t.rows = append(t.rows, row)
	case n-1 > first && codeOf(t.rows[n-2]) == b.code:
		t.rows = t.rows[:n-1] // the row before held for nothing, and the one before that goes on
	default:
		t.rows[n-1] = row
	}
	if len(t.rows) > maxRows {
		return tooLarge("more than %d rows", maxRows)
	}
	b.last = b.code
	return nil
}

func codeOf(row uint32) uint32 { return row & (1<<codeBits - 1) }

// reach begins the blocks up to that of off, each with the rule that holds there.
func (b *builder) reach(off objfile.FileOffset) error {
	t := b.table
	block := uint64(off-t.start) >> blockBits
	if block >= maxSpan>>blockBits {
		return tooLarge("code from %#x to %#x", uint64(t.start), uint64(off))
	}
	for uint64(len(t.index)) <= block {
		t.index = append(t.index, uint32(len(t.rows)))
		if b.last != codeGap {
			t.rows = append(t.rows, b.last)
		}
	}
	return nil
}

// encode gives a rule its code, and puts it into the table if it fits none.
func (b *builder) encode(r Rule) (uint32, error) {
	switch r.Kind {
	case Gap:
		return codeGap, nil
	case Outermost:
		return codeOutermost, nil
	}
	if code, ok := b.table.codec.pack(r); ok {
		return code, nil
	}
	if code, ok := b.codes[r]; ok {
		return code, nil
	}
	t := b.table
	if len(t.rules) >= maxRules {
		return 0, tooLarge("more than %d rules", maxRules)
	}
	code := uint32(kindTable<<kindPos | len(t.rules))
	t.rules = append(t.rules, r)
	b.codes[r] = code
	return code, nil
}

// finish ends the last rule and returns the table.
func (b *builder) finish(end objfile.FileOffset) (*Table, error) {
	if err := b.add(end, Rule{}); err != nil {
		return nil, err
	}
	t := b.table
	t.index = append(t.index, uint32(len(t.rows)))
	t.index, t.rows, t.rules = fit(t.index), fit(t.rows), slices.Clone(t.rules)
	return t, nil
}

// fit gives back memory that is spare, unless that is little.
func fit[T any](s []T) []T {
	if cap(s)-len(s) > len(s)/16 {
		return slices.Clone(s)
	}
	return s
}
