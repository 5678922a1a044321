package kallsyms

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Bounds on the input. Reading holds at most 24 bytes a symbol and two copies of the names beside the result, and at least room for usualSymbols.
const (
	// maxInputBytes: an amd64 kernel with CONFIG_KALLSYMS_ALL and 150 modules has about 15 MB of kallsyms.
	maxInputBytes = 64 << 20
	// maxSymbols is for code symbols; a large distribution kernel has 200,000 with its modules.
	maxSymbols = 1 << 20
	// A file has 122,000 code symbols and 3 MB of their names on a 6.18 kernel without modules. Slices that grow to that are copied a dozen times.
	usualSymbols, usualNameBytes = 1 << 17, 32
	// maxLineBytes: KSYM_NAME_LEN is 512 since Linux 6.1, a module name at most 64. A longer line is malformed.
	maxLineBytes = 1024
)

// The linker's marks at the end of the kernel's text and of its init text. They name no code: what follows is data.
const (
	textEnd     = "_etext"
	initTextEnd = "_einittext"
)

// prefixPadding begins the symbols that CONFIG_CALL_PADDING puts on the bytes before each function.
const prefixPadding = "__pfx_"

// An entry is one code symbol while reading.
type entry struct {
	addr  uint64
	name  uint32 // offset into reader.names, where it ends with a newline
	owner uint32
	kind  byte // nm's letter: T and t, W and w
	end   bool // textEnd or initTextEnd
}

// Read reads the content of /proc/kallsyms:
//
//	ffffffff810c4a90 T do_exit
//	ffffffffc0a5b010 t nft_do_chain	[nf_tables]
//	ffffffffc0201bd4 t bpf_prog_6deef7357e7b4530_sd_fw_egress	[bpf]
//
// Only code is kept: the types T, t (text) and W, w (weak text). The order of the lines does not matter.
func Read(r io.Reader) (*Table, error) {
	p := reader{owners: []string{""}, ownerIndex: map[string]uint32{"": 0}}
	if err := p.readLines(io.LimitReader(r, maxInputBytes+1)); err != nil {
		return nil, err
	}
	switch {
	case len(p.entries) > 0:
		return p.table(), nil
	case p.zeroAddrs > 0:
		return nil, ErrRestricted
	default:
		return nil, ErrNoSymbols
	}
}

type reader struct {
	entries    []entry
	names      []byte // newline-terminated
	owners     []string
	ownerIndex map[string]uint32
	zeroAddrs  int // code symbols whose address is shown as zero
	malformed  int
}

func (p *reader) readLines(r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	total := 0
	for {
		line, err := br.ReadSlice('\n')
		total += len(line)
		tooLong := len(line) > maxLineBytes
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of the long line
			line, err = br.ReadSlice('\n')
			total += len(line)
		}
		switch {
		case total > maxInputBytes:
			return ErrTooLarge
		case tooLong:
			p.malformed++
		case len(line) > 0 && !p.line(bytes.TrimSuffix(line, []byte("\n"))):
			p.malformed++
		}
		if len(p.entries) > maxSymbols {
			return ErrTooLarge
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading kallsyms: %w", err)
		}
	}
}

// line takes one line and reports whether it is well-formed.
func (p *reader) line(line []byte) bool {
	addr, rest, ok := cutHex(line)
	if !ok || len(rest) < 4 || rest[0] != ' ' || rest[2] != ' ' {
		return false
	}
	kind, rest := rest[1], rest[3:]
	switch kind {
	case 'T', 't', 'W', 'w':
	default:
		return true // data, absolute
	}
	name, owner := rest, []byte(nil)
	if i := bytes.IndexByte(rest, '\t'); i >= 0 {
		name, owner = rest[:i], rest[i+1:]
		if len(owner) < 3 || owner[0] != '[' || owner[len(owner)-1] != ']' {
			return false
		}
		owner = owner[1 : len(owner)-1]
	}
	if len(name) == 0 {
		return false
	}
	if name[0] == '$' {
		return true // an ARM mapping symbol ($x, $d): a mark for disassemblers, not a function
	}
	if addr == 0 {
		p.zeroAddrs++
		return true
	}
	if p.entries == nil {
		p.entries, p.names = make([]entry, 0, usualSymbols), make([]byte, 0, usualSymbols*usualNameBytes)
	}
	p.entries = append(p.entries, entry{
		addr:  addr,
		name:  uint32(len(p.names)),
		owner: p.ownerOf(owner),
		kind:  kind,
		end:   len(owner) == 0 && (string(name) == textEnd || string(name) == initTextEnd),
	})
	p.names = append(append(p.names, name...), '\n')
	return true
}

func (p *reader) ownerOf(name []byte) uint32 {
	if i, ok := p.ownerIndex[string(name)]; ok {
		return i
	}
	i := uint32(len(p.owners))
	p.owners = append(p.owners, string(name))
	p.ownerIndex[string(name)] = i
	return i
}

func (p *reader) name(e entry) []byte {
	rest := p.names[e.name:]
	return rest[:bytes.IndexByte(rest, '\n')]
}

// better orders the aliases of one address, the best first. It is perf's order (choose_best_symbol), so that both
// tools tell the same story: strong before weak, global before local, fewer leading underscores, the longer name.
// Before all of it: an end mark, because what it marks is more than a name; last: the padding symbols of
// call thunks, which share an address with one another only, and the alphabet, for a total order.
func (p *reader) better(a, b entry) int {
	an, bn := p.name(a), p.name(b)
	return cmp.Or(
		falseFirst(!a.end, !b.end),
		falseFirst(bytes.HasPrefix(an, []byte(prefixPadding)), bytes.HasPrefix(bn, []byte(prefixPadding))),
		falseFirst(a.kind|0x20 == 'w', b.kind|0x20 == 'w'),
		falseFirst(a.kind&0x20 != 0, b.kind&0x20 != 0),
		cmp.Compare(leadingUnderscores(an), leadingUnderscores(bn)),
		cmp.Compare(len(bn), len(an)),
		bytes.Compare(an, bn),
		cmp.Compare(p.owners[a.owner], p.owners[b.owner]),
	)
}

// sort brings the entries in the order of their addresses, and the aliases of one address in that of better. The kernel's own come in order of
// addresses but for their aliases, and on amd64 modules and BPF programs, which do not, lie behind them: then only those are to be sorted.
func (p *reader) sort() {
	order := func(a, b entry) int {
		if a.addr != b.addr {
			return cmp.Compare(a.addr, b.addr)
		}
		return p.better(a, b)
	}
	inOrder := 1
	for inOrder < len(p.entries) && p.entries[inOrder-1].addr <= p.entries[inOrder].addr {
		inOrder++
	}
	kernel, others := p.entries[:inOrder], p.entries[inOrder:]
	slices.SortFunc(others, order)
	if len(others) > 0 && others[0].addr <= kernel[inOrder-1].addr {
		slices.SortFunc(p.entries, order)
		return
	}
	for len(kernel) > 0 {
		aliases := 1
		for aliases < len(kernel) && kernel[aliases].addr == kernel[0].addr {
			aliases++
		}
		slices.SortFunc(kernel[:aliases], order)
		kernel = kernel[aliases:]
	}
}

// table sorts the entries, chooses among aliases and builds the compact form.
func (p *reader) table() *Table {
	p.sort()
	p.entries = slices.CompactFunc(p.entries, func(a, b entry) bool { return a.addr == b.addr })

	b := builder{
		owners: p.owners,
		blob:   make([]byte, 0, len(p.names)),
		// One unnamed entry a run, and runs are few: no second allocation in practice.
		offsets: make([]uint32, 0, len(p.entries)+len(p.entries)/64+16),
		names:   make([]uint32, 0, len(p.entries)+len(p.entries)/64+16),
	}
	for i, e := range p.entries {
		limit := b.reach(e)
		if i+1 < len(p.entries) {
			limit = min(limit, endBefore(p.entries[i+1], e))
		}
		b.add(e, p.name(e), limit)
	}
	b.endRun()
	return &Table{
		runs:      slices.Clip(b.runs),
		offsets:   b.offsets,
		names:     b.names,
		owners:    slices.Clip(b.owners),
		blob:      string(b.blob),
		symbols:   b.symbols,
		malformed: p.malformed,
	}
}

// endBefore is where e ends because next begins: at next, or at the page in which another owner's text begins.
func endBefore(next, e entry) uint64 {
	if page := next.addr &^ (pageBytes - 1); next.owner != e.owner && page > e.addr {
		return page
	}
	return next.addr
}

// A builder makes the arrays of a Table from symbols in the order of their addresses.
type builder struct {
	runs      []run
	offsets   []uint32
	names     []uint32
	owners    []string
	blob      []byte
	symbols   int
	lastLimit uint64 // where the symbol added last ends
	lastName  []byte
}

// reach is the address that e cannot extend beyond, whatever follows it.
func (b *builder) reach(e entry) uint64 {
	limit := uint64(maxFunctionBytes)
	if b.owners[e.owner] == bpfOwner {
		limit = maxProgramBytes
	}
	if e.addr > ^uint64(0)-limit {
		return ^uint64(0)
	}
	return e.addr + limit
}

// add appends e, which ends at limit.
func (b *builder) add(e entry, name []byte, limit uint64) {
	startsRun := len(b.runs) == 0
	if !startsRun {
		r := b.runs[len(b.runs)-1]
		startsRun = r.owner != e.owner || e.addr-r.base >= 1<<32-maxProgramBytes
	}
	switch {
	case startsRun:
		b.endRun()
		b.runs = append(b.runs, run{base: e.addr, first: uint32(len(b.offsets)), owner: e.owner})
	case b.lastLimit < e.addr:
		b.append(b.lastLimit, unnamed)
	}
	b.lastLimit = limit
	if e.end {
		b.append(e.addr, unnamed)
		return
	}
	b.append(e.addr, b.intern(name))
	b.symbols++
}

// endRun ends the last symbol of the run.
func (b *builder) endRun() {
	if len(b.runs) > 0 {
		b.append(b.lastLimit, unnamed)
	}
}

func (b *builder) append(addr uint64, name uint32) {
	base := b.runs[len(b.runs)-1].base
	b.offsets = append(b.offsets, uint32(addr-base))
	b.names = append(b.names, name)
}

// intern puts name into the blob. Where padding symbols exist they come right before their function and make up half
// of the table, so a function is found at the end of its padding symbol's name.
func (b *builder) intern(name []byte) uint32 {
	padded := len(b.lastName) == len(prefixPadding)+len(name) &&
		bytes.HasPrefix(b.lastName, []byte(prefixPadding)) && bytes.HasSuffix(b.lastName, name)
	b.lastName = name
	if padded {
		return uint32(len(b.blob) - len(name) - 1)
	}
	at := uint32(len(b.blob))
	b.blob = append(append(b.blob, name...), '\n')
	return at
}

// cutHex cuts a hexadecimal number of up to 16 digits off the front of s.
func cutHex(s []byte) (v uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(s); i++ {
		var digit byte
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c && c <= 'f':
			digit = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			digit = c - 'A' + 10
		default:
			return v, s[i:], 0 < i && i <= 16
		}
		v = v<<4 | uint64(digit)
	}
	return v, nil, 0 < i && i <= 16
}

func leadingUnderscores(name []byte) int {
	return len(name) - len(bytes.TrimLeft(name, "_"))
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
