package unwind

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// What Compile refuses.
var (
	// ErrNone: the file has neither .eh_frame nor .debug_frame, nor anything else that tells of its frames.
	ErrNone = errors.New("no unwind information")
	// ErrTooLarge: a named limit is exceeded.
	ErrTooLarge = errors.New("too much unwind information")
)

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrTooLarge, fmt.Sprintf(format, args...))
}

// maxPadding bounds what is taken for padding: what aligns to 16 bytes.
const maxPadding = 16

// isPadding reports whether what lies between two functions is there to align the second alone. No row is spent on that. Between Go
// functions nothing else can be: their table is complete.
func isPadding(previous, next *function) bool {
	gap := uint64(next.start - previous.end())
	alignment := uint64(next.start & -next.start)
	return gap < min(alignment, maxPadding) || previous.kind == goFunction && next.kind == goFunction
}

// A compiler makes the table of one file.
type compiler struct {
	file      *objfile.File
	roles     roles
	segments  []objfile.Segment // the executable ones
	code      []objfile.Extent
	functions []function
	stacks    []goStack
	goroutine Rule   // from the runtime's stack to that of the goroutine; a gap: not known
	rules     []Rule // of functions that have one
	stats     Stats
}

func newCompiler(f *objfile.File) *compiler {
	c := &compiler{file: f, roles: rolesOf(f.Machine()), code: f.Code()}
	for _, s := range f.Segments() {
		if s.Type == objfile.PT_LOAD && s.Flags&objfile.PF_X != 0 && len(c.segments) < maxSegments {
			c.segments = append(c.segments, s)
		}
	}
	for _, e := range c.code {
		c.stats.Code += e.Size
	}
	return c
}

// place returns the file offset of code, and how many bytes of its segment are left from there.
func (c *compiler) place(a objfile.Address) (off objfile.FileOffset, room uint64, ok bool) {
	for _, s := range c.segments {
		if a >= s.Addr && uint64(a-s.Addr) < s.FileSize {
			skip := uint64(a - s.Addr)
			return s.Off + objfile.FileOffset(skip), s.FileSize - skip, true
		}
	}
	return 0, 0, false
}

// Compile makes the table of a file. What its damaged parts say is left out, and counted in [Stats].
//
// Errors wrap [ErrNone], [ErrTooLarge] or what the file's reader returned.
func Compile(f *objfile.File) (*Table, error) {
	c := newCompiler(f)
	if err := c.addGo(); err != nil {
		return nil, err
	}
	sections, err := c.sections()
	if err != nil {
		return nil, err
	}
	for _, s := range sections {
		before := len(c.functions)
		if err := s.functions(c); errors.Is(err, ErrTooLarge) {
			return nil, err
		} else if err != nil {
			c.stats.Damage = append(c.stats.Damage, err)
		}
		if len(c.functions) > before {
			c.stats.Sources = append(c.stats.Sources, s.name)
		}
	}
	return c.finish()
}

// finish makes the table of the functions that were found, and of what their instructions tell of others.
func (c *compiler) finish() (*Table, error) {
	if err := c.addUntold(); err != nil {
		return nil, err
	}
	c.sort()
	if len(c.functions) == 0 {
		return nil, errors.Join(append(c.stats.Damage, ErrNone)...)
	}
	c.addEntry()
	c.sort()
	return c.build()
}

// sort puts the functions into the order of their code. Where two tell of the same, the first section wins.
func (c *compiler) sort() {
	slices.SortStableFunc(c.functions, func(a, b function) int { return cmp.Compare(a.start, b.start) })
	c.functions = slices.CompactFunc(c.functions, func(a, b function) bool { return a.start == b.start })
}

// entryBytes is how far the code at a file's entry point is taken for its outermost function, where nothing tells of it. That of
// the dynamic loader has 90 bytes.
const entryBytes = 128

// addEntry adds the code at the entry point where it has no function: nobody calls it. So it is in the dynamic loader, in
// musl, and in much that is written by hand.
func (c *compiler) addEntry() {
	off, room, ok := c.place(c.file.Entry())
	if ok && c.file.Entry() != 0 && c.isStarted() && !c.covers(off) {
		c.addRule(off, int(min(room, entryBytes)), Rule{Kind: Outermost})
	}
}

// build runs the functions' instructions in the order of their code.
func (c *compiler) build() (*Table, error) {
	b := newBuilder(c.file.Machine(), c.functions[0].start)
	b.table.rows = make([]uint32, 0, min(10*len(c.functions), 1<<21)) // a function has nine on average
	p := &program{compiler: c, builder: b, keepsFP: c.file.Machine() == objfile.EM_X86_64}
	var end objfile.FileOffset
	for i := range c.functions {
		f := &c.functions[i]
		// The tail of a function that another one lies in is a gap.
		if i+1 < len(c.functions) {
			f.length = uint32(min(uint64(f.length), uint64(c.functions[i+1].start-f.start)))
		}
		if i > 0 && !isPadding(&c.functions[i-1], f) {
			if err := b.add(end, Rule{}); err != nil {
				return nil, err
			}
		}
		if err := p.run(f); err != nil {
			return nil, err
		}
		if f.kind != ruled {
			c.stats.Functions++
		}
		end = f.end()
	}
	c.stats.KeepsFramePointer = p.keepsFP
	t, err := b.finish(end)
	if err != nil {
		return nil, err
	}
	c.stats.Rows, c.stats.Rules = len(t.rows), len(t.rules)
	t.stats, t.goCode = c.stats, len(c.stacks) > 0
	return t, nil
}

// isStarted reports whether the kernel starts the file at its entry point. Of libraries some linkers say that it is where their
// code begins; of the dynamic loader it begins by taking the stack pointer, or by clearing the frame pointer.
func (c *compiler) isStarted() bool {
	if c.file.Type() == objfile.ET_EXEC {
		return true
	}
	for _, s := range c.file.Segments() {
		if s.Type == objfile.PT_INTERP {
			return true
		}
	}
	begins := []string{"\x48\x89\xe7", "\x31\xed", "\x48\x31\xed"} // mov %rsp,%rdi; xor %ebp,%ebp; xor %rbp,%rbp
	if c.file.Machine() == objfile.EM_AARCH64 {
		begins = []string{"\xe0\x03\x00\x91", "\x1d\x00\x80\xd2", "\x1e\x00\x80\xd2"} // mov x0,sp; mov x29,#0; mov x30,#0
	}
	var code [8]byte
	n, _ := c.file.ReadAtAddress(code[:], c.file.Entry()) // fewer bytes, or none, begin like neither
	instructions := string(code[:n])
	for _, marker := range []string{"\xf3\x0f\x1e\xfa", "\x5f\x24\x03\xd5"} { // endbr64, bti c
		instructions = strings.TrimPrefix(instructions, marker)
	}
	return slices.ContainsFunc(begins, func(begin string) bool { return strings.HasPrefix(instructions, begin) })
}

// A program runs the instructions of functions, and adds their rules.
type program struct {
	compiler *compiler
	builder  *builder
	keepsFP  bool
	frame    framePointer
}

// run adds the rules of one function. From where its instructions are broken on it is a gap.
func (p *program) run(f *function) error {
	switch f.kind {
	case ruled:
		r := p.compiler.rules[f.from]
		p.keepsFP = p.keepsFP && r.Kind != SignalFrame
		return p.builder.add(f.start, r)
	case goFunction:
		for _, s := range p.compiler.stacks[f.from:f.to] {
			if off := f.start + objfile.FileOffset(s.skip); off < f.end() {
				if err := p.builder.add(off, p.compiler.goRule(s)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	m := interpreter{roles: p.compiler.roles, cie: f.cie, in: f.cie.section.in.Sub(int(f.from), int(f.to)), state: f.cie.initial}
	p.frame = framePointer{}
	at, end := f.start, f.end()
	var err error
	emit := func(until objfile.FileOffset) bool {
		if until > at { // or the state held for nothing
			err = p.add(at, &m.state, f.cie)
			at = until
		}
		return err == nil && at < end
	}
	ok := m.run(func(bytes uint64, to objfile.Address) bool {
		until := at + objfile.FileOffset(min(bytes, uint64(end-at)))
		if to != 0 {
			if to < f.addr+objfile.Address(at-f.start) {
				m.in.Failed = true
				return true
			}
			until = f.start + objfile.FileOffset(min(uint64(to-f.addr), uint64(f.length)))
		}
		return emit(until)
	})
	if err != nil {
		return err
	}
	if !ok {
		p.compiler.stats.Broken++
		p.keepsFP = false
		return p.builder.add(at, Rule{})
	}
	emit(end)
	if err == nil && !p.frame.kept() {
		p.keepsFP = false
	}
	return err
}

func (p *program) add(at objfile.FileOffset, s *state, cie *cie) error {
	r, ok := s.rule(p.compiler.roles, cie)
	if !ok {
		p.compiler.stats.Unsupported++
		r = Rule{}
	}
	p.frame.see(at, r)
	return p.builder.add(at, r)
}

// framePointer looks at the rules of an x86-64 function, to tell whether rbp leads to its caller wherever it may call another:
//
//	endbr64; push %rbp    CFA = rsp+8
//	...; mov %rsp,%rbp    CFA = rsp+16, rbp at CFA-16     until this instruction, before which others may be moved, but no call
//	...                   CFA = rbp+16, rbp at CFA-16
//	leave; ret            CFA = rsp+8
//
// A function that never moves the stack pointer calls nobody: the ABI wants it aligned at a call. Nor does a procedure linkage table.
type framePointer struct {
	pushed  objfile.FileOffset // where the second row of the prologue began
	pushing bool
	lost    bool
	plt     bool
}

// prologueBytes is how late a compiler may set the frame pointer: 33 bytes were seen.
const prologueBytes = 64

func (p *framePointer) see(at objfile.FileOffset, r Rule) {
	saved := fromCFA(-2 * word)
	switch {
	case r.Kind == Outermost:
	case r.CFA == CFAPLT:
		p.plt = true
	case r.Kind != Step || r.CFA != CFARegister:
		p.lost = true
	case r.CFABase == X86RBP && r.Offset == 2*word && r.FP == saved:
		p.lost = p.lost || p.pushing && at-p.pushed > prologueBytes
		p.pushing = false
	case p.pushing:
		p.lost = true
	case r.CFABase == X86RSP && r.Offset == word:
	case r.CFABase == X86RSP && r.Offset == 2*word && r.FP == saved:
		p.pushing, p.pushed = true, at
	default:
		p.lost = true
	}
}

func (p *framePointer) kept() bool {
	return p.plt || !p.lost && !p.pushing
}
