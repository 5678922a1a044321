// Package jit names the code that just-in-time compilers make, from the perf map files they write.
//
// The caller supplies the content of /tmp/perf-PID.map (opened inside the process's own mount namespace, and
// checked to be a regular file of the process's user) and, as the file grows, what was appended to it. The
// package opens nothing itself.
//
// A JIT uses its memory again: a later line takes its range away from earlier ones, wholly or in part, and the last
// writer wins. The process that is profiled controls the file, so everything is bounded: what is held ([PerfMap.Bytes]),
// what one call reads, how long a name may be. What the bounds cost is counted ([Stats]); the oldest entries go
// first, and an address whose entry went has no name rather than an older one.
package jit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync/atomic"
	"unicode/utf8"
)

// Bounds on what one process can make us hold and do.
const (
	// maxReadBytes is what one call of Append reads; the next call goes on. The perf map of a large JVM
	// (100,000 methods) has about 10 MB.
	maxReadBytes = 64 << 20
	// maxSegments and maxNamesBytes bound a map's memory to 10 MiB for the ranges and 16 MiB for the names, twice
	// that while Append runs. A JVM's code cache of 240 MB holds 100,000 methods or fewer.
	maxSegments   = 1 << 18
	maxNamesBytes = 16 << 20
	// maxLineBytes cuts longer lines. C++ and Scala make names of several hundred bytes.
	maxLineBytes = 1024
	// batchEntries are sorted at a time, and then merged in one pass over what is there: a file of n lines
	// costs n/batchEntries passes.
	batchEntries = 1 << 14
)

// Stats counts what [PerfMap.Append] met, since the start.
type Stats struct {
	Entries   uint64 // lines that named a range
	Malformed uint64 // lines that did not: no two hexadecimal numbers and a name, no size, beyond the address space
	Cut       uint64 // entries whose name was cut at the line bound
	Evicted   uint64 // ranges dropped, the oldest first, because the map was full
}

// A PerfMap maps addresses to the names a JIT wrote. Lookup and Bytes are safe for concurrent use, also with Append;
// the other methods belong to one goroutine.
type PerfMap struct {
	// state is replaced, never changed: a look-up sees the map before an Append or after.
	state atomic.Pointer[state]

	stats  Stats
	offset int64
	seq    uint64  // of the last entry
	batch  []entry // not merged yet; empty between calls
	line   []byte  // a last line without its newline, at most maxLineBytes of it
	cut    bool    // line is missing some of its bytes
	limits limits
}

// limits are the constants of the same names; tests make them small.
type limits struct {
	readBytes  int64
	segments   int
	namesBytes int
	batch      int
}

type state struct {
	segments []segment // sorted, disjoint
	names    int       // bytes of their names
}

// An entry is one line. [start, end) is not empty.
type entry struct {
	start, end uint64
	seq        uint64 // its number in the file: the highest wins
	name       string
}

// A segment is the part of an entry's range that no later entry took.
type segment = entry

// ReadPerfMap reads a perf map from its start:
//
//	7f2a1c0040a0 1c0 Lorg/example/Server;::handle
//	0x7f2a1c004260 60 LazyCompile:*parse /srv/app/index.js:12
//
// start, size (hexadecimal, with or without 0x), name (to the end of the line, spaces and all). After an error of r the
// map holds what came before it.
func ReadPerfMap(r io.Reader) (*PerfMap, error) {
	m := newPerfMap(limits{maxReadBytes, maxSegments, maxNamesBytes, batchEntries})
	return m, m.Append(r)
}

func newPerfMap(l limits) *PerfMap {
	m := &PerfMap{limits: l}
	m.state.Store(new(state))
	return m
}

// Append reads on where the last call stopped: r begins at [PerfMap.Offset]. A last line without newline is kept
// until a later call completes it. One call reads at most maxReadBytes; the caller who finds that Offset is
// not yet the file's size calls again. A call costs a pass over the map (2 ms for 100,000 methods), so it belongs on a timer.
// A file that became shorter was written anew: it wants a new PerfMap.
func (m *PerfMap) Append(r io.Reader) error {
	br := bufio.NewReaderSize(io.LimitReader(r, m.limits.readBytes), 64<<10)
	var err error
	for err == nil {
		var part []byte
		part, err = br.ReadSlice('\n')
		m.offset += int64(len(part))
		m.take(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
		}
	}
	m.merge()
	if err != io.EOF {
		return fmt.Errorf("reading perf map at offset %d: %w", m.offset, err)
	}
	return nil
}

// Offset is the number of bytes read, which is where the next Append goes on.
func (m *PerfMap) Offset() int64 { return m.offset }

// Stats returns the counts so far.
func (m *PerfMap) Stats() Stats { return m.stats }

// Lookup returns the name of the code at addr. For a return address the caller passes addr-1.
func (m *PerfMap) Lookup(addr uint64) (name string, ok bool) {
	segments := m.state.Load().segments
	i := sort.Search(len(segments), func(i int) bool { return segments[i].end > addr })
	if i == len(segments) || segments[i].start > addr {
		return "", false
	}
	return segments[i].name, true
}

// Bytes is the memory the names and ranges hold. Pieces of one entry are counted as if each had its own name.
func (m *PerfMap) Bytes() int {
	const segmentBytes = 40
	s := m.state.Load()
	return cap(s.segments)*segmentBytes + s.names
}

// take adds a part of the file that is a line, or the beginning, middle or end of one.
func (m *PerfMap) take(part []byte) {
	if len(part) == 0 {
		return
	}
	complete := part[len(part)-1] == '\n'
	if complete {
		part = part[:len(part)-1]
	}
	if room := maxLineBytes - len(m.line); len(part) > room {
		part, m.cut = part[:room], true
	}
	if !complete {
		m.line = append(m.line, part...)
		return
	}
	if len(m.line) > 0 {
		part = append(m.line, part...)
	}
	m.add(part)
	m.line, m.cut = m.line[:0], false
}

// add takes one line.
func (m *PerfMap) add(line []byte) {
	e, ok := parseLine(line, m.cut)
	if !ok {
		m.stats.Malformed++
		return
	}
	m.stats.Entries++
	if m.cut {
		m.stats.Cut++
	}
	m.seq++
	e.seq = m.seq
	m.batch = append(m.batch, e)
	if len(m.batch) >= m.limits.batch {
		m.merge()
	}
}

// parseLine reads "START SIZE name". A cut line ends anywhere, so its name is cut back to a whole rune.
func parseLine(line []byte, cut bool) (entry, bool) {
	start, line, ok := cutHex(line)
	if !ok {
		return entry{}, false
	}
	size, name, ok := cutHex(line)
	if !ok || size == 0 || start+size < start {
		return entry{}, false
	}
	for len(name) > 0 && (isBlank(name[len(name)-1]) || name[len(name)-1] == '\r') {
		name = name[:len(name)-1]
	}
	for i := 0; cut && i < utf8.UTFMax-1 && len(name) > 0; i++ {
		if r, n := utf8.DecodeLastRune(name); r != utf8.RuneError || n > 1 {
			break
		}
		name = name[:len(name)-1]
	}
	if len(name) == 0 {
		return entry{}, false
	}
	return entry{start: start, end: start + size, name: string(name)}, true
}

// cutHex cuts a hexadecimal number and the blanks behind it off the front of s. The blanks must be there.
func cutHex(s []byte) (v uint64, rest []byte, ok bool) {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	i := 0
	for ; i < len(s); i++ {
		digit, isHex := hexDigit(s[i])
		if !isHex {
			break
		}
		if v>>60 != 0 {
			return 0, nil, false
		}
		v = v<<4 | digit
	}
	rest = s[i:]
	if i == 0 || len(rest) == 0 || !isBlank(rest[0]) {
		return 0, nil, false
	}
	for len(rest) > 0 && isBlank(rest[0]) {
		rest = rest[1:]
	}
	return v, rest, true
}

func hexDigit(c byte) (uint64, bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// merge puts the batch over what is there and publishes the result.
func (m *PerfMap) merge() {
	if len(m.batch) == 0 {
		return
	}
	segments := overlay(m.state.Load().segments, flatten(m.batch))
	clear(m.batch) // let go of the names
	m.batch = m.batch[:0]
	names := namesBytes(segments)
	if len(segments) > m.limits.segments || names > m.limits.namesBytes {
		segments, names = m.evict(segments)
	}
	if cap(segments)-len(segments) > len(segments)/4 {
		segments = slices.Clone(segments)
	}
	m.state.Store(&state{segments: segments, names: names})
}

// evict drops the oldest segments until the map is seven eighths full, so that it need not be done at every merge.
func (m *PerfMap) evict(segments []segment) ([]segment, int) {
	newestFirst := slices.Clone(segments)
	slices.SortFunc(newestFirst, func(a, b segment) int {
		switch {
		case a.seq > b.seq:
			return -1
		case a.seq < b.seq:
			return 1
		}
		return 0
	})
	kept, names := 0, 0
	for _, s := range newestFirst {
		if kept+1 > m.limits.segments-m.limits.segments/8 || names+len(s.name) > m.limits.namesBytes-m.limits.namesBytes/8 {
			break
		}
		kept++
		names += len(s.name)
	}
	if kept == len(segments) {
		return segments, names
	}
	// All pieces of the entry at the boundary go: half an entry would be a riddle.
	newest := newestFirst[kept].seq
	left := make([]segment, 0, kept)
	for _, s := range segments {
		if s.seq > newest {
			left = append(left, s)
		}
	}
	m.stats.Evicted += uint64(len(segments) - len(left))
	return left, namesBytes(left)
}

func namesBytes(segments []segment) int {
	n := 0
	for _, s := range segments {
		n += len(s.name)
	}
	return n
}
