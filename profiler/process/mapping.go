package process

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Address is a virtual address in a running process.
type Address uint64

// Mapping is executable memory of a process.
type Mapping struct {
	Start, End Address
	Offset     objfile.FileOffset
	// Since is when it was mapped (CLOCK_MONOTONIC, ns); 0: before we looked.
	Since uint64
	File  *File
}

// offset is that of the first byte: the vdso is no file that anything was mapped from, whatever is said of it.
func (m *Mapping) offset() objfile.FileOffset {
	if m.File.VDSO() {
		return 0
	}
	return m.Offset
}

// FileOffset is where in the mapped file an address of the mapping lies.
func (m *Mapping) FileOffset(a Address) objfile.FileOffset {
	return m.offset() + objfile.FileOffset(a-m.Start)
}

// AddressOf is where a place in the mapped file lies.
func (m *Mapping) AddressOf(off objfile.FileOffset) Address {
	return m.Start + Address(off-m.offset())
}

// holds says whether a place in a file lies in the mapping.
func (m *Mapping) holds(f *File, off objfile.FileOffset) bool {
	return m.File.same(f) && off >= m.offset() && m.AddressOf(off) < m.End
}

// maxMappings bounds the executable mappings of one process. A JIT that
// exceeds it loses the names of what comes later, nobody else does.
const maxMappings = 65536

// mappingTable is the executable memory of a process now, and what stood
// there a moment ago. Tables are shared by forked processes until one changes.
type mappingTable struct {
	// mappings are sorted by Start and do not overlap.
	mappings []Mapping
	// byPlace are those of files, by their place in them, from the first time on that somebody asks for one; nil before. They are shared as
	// the mappings are: whichever of the forked processes is asked first makes them for all.
	byPlace *[]*Mapping
	// retired were replaced lately; the newest come last. Forked processes share what was there at the fork: it is added to, never changed.
	retired []retiredMapping
	shared  bool
	// version goes up with every change; changed is the time of the last one.
	version uint32
	changed uint64
}

type retiredMapping struct {
	Mapping
	until uint64
}

// maxRetired replaced mappings are remembered: a round of samples meets few.
const maxRetired = 128

// find gives the mapping that held a at the time of a sample.
func (t *mappingTable) find(a Address, time uint64) (m *Mapping, stale bool) {
	i, ok := slices.BinarySearchFunc(t.mappings, a, func(m Mapping, a Address) int {
		switch {
		case m.End <= a:
			return -1
		case m.Start > a:
			return 1
		}
		return 0
	})
	if ok && t.mappings[i].Since <= time {
		return &t.mappings[i], false
	}
	for j := range slices.Backward(t.retired) {
		r := &t.retired[j]
		if r.Start <= a && a < r.End && r.Since <= time && time < r.until {
			return &r.Mapping, false
		}
	}
	return nil, ok
}

// maxOverlaps bounds the mappings of one file that are looked at for a place: those that begin there or before it. More than one
// of them hold it only where a process maps the same code twice.
const maxOverlaps = 64

// holding gives a mapping of a place in a file that suits, the latest if it was replaced; until is when that was.
func (t *mappingTable) holding(f *File, off objfile.FileOffset, suits func(m *Mapping, until uint64) bool) *Mapping {
	places := t.places()
	after, _ := slices.BinarySearchFunc(places, off, func(m *Mapping, off objfile.FileOffset) int {
		if m.File.key.Inode < f.key.Inode || m.File.key.Inode == f.key.Inode && m.offset() <= off {
			return -1
		}
		return 1
	})
	for i := after - 1; i >= max(0, after-maxOverlaps) && places[i].File.key.Inode == f.key.Inode; i-- {
		if m := places[i]; m.holds(f, off) && suits(m, math.MaxUint64) {
			return m
		}
	}
	for i := range slices.Backward(t.retired) {
		if r := &t.retired[i]; r.holds(f, off) && suits(&r.Mapping, r.until) {
			return &r.Mapping
		}
	}
	return nil
}

func (t *mappingTable) places() []*Mapping {
	if t.byPlace == nil {
		t.byPlace = new([]*Mapping)
	}
	if *t.byPlace == nil {
		places := make([]*Mapping, 0, len(t.mappings))
		for _, m := range t.mappings {
			if m.File.hasPlaces() {
				places = append(places, &m)
			}
		}
		slices.SortFunc(places, comparePlaces)
		*t.byPlace = places
	}
	return *t.byPlace
}

// comparePlaces orders mappings of files. Files of the same contents have one inode number, whatever else is known of them; others
// may share it, on another device.
func comparePlaces(a, b *Mapping) int {
	return cmp.Or(cmp.Compare(a.File.key.Inode, b.File.key.Inode), cmp.Compare(a.offset(), b.offset()), cmp.Compare(a.Start, b.Start))
}

// replacePlaces follows a change of mappings.
func (t *mappingTable) replacePlaces(removed, added []Mapping) {
	if t.byPlace == nil || *t.byPlace == nil {
		return
	}
	places := *t.byPlace
	for _, m := range removed {
		if i, ok := slices.BinarySearchFunc(places, &m, comparePlaces); ok {
			places = slices.Delete(places, i, i+1)
		}
	}
	for _, m := range added {
		if m.File.hasPlaces() {
			i, _ := slices.BinarySearchFunc(places, &m, comparePlaces)
			places = slices.Insert(places, i, &m)
		}
	}
	*t.byPlace = places
}

// insert puts a mapping in place of whatever it overlaps.
func (t *mappingTable) insert(m Mapping) {
	if i, ok := slices.BinarySearchFunc(t.mappings, m.Start, func(o Mapping, a Address) int { return cmp.Compare(o.Start, a) }); ok &&
		sameMapping(t.mappings[i], m) && !m.File.Regular() {
		return // mprotect to and fro, as JITs do. A file may be another one by now
	}
	t.own()
	first := t.firstEndingAfter(m.Start)
	last := first
	var rest []Mapping
	for ; last < len(t.mappings) && t.mappings[last].Start < m.End; last++ {
		o := t.mappings[last]
		t.retire(o, m.Since)
		if o.Start < m.Start {
			left := o
			left.End = m.Start
			rest = append(rest, left)
		}
	}
	var right []Mapping
	if last > first {
		if o := t.mappings[last-1]; o.End > m.End {
			o.Offset, o.Start = o.FileOffset(m.End), m.End
			right = []Mapping{o}
		}
	}
	t.version++
	t.changed = max(t.changed, m.Since)
	pieces := append(append(rest, m), right...)
	if len(t.mappings)-(last-first)+len(pieces) > maxMappings {
		pieces = rest // what was overwritten is gone all the same
	}
	t.replacePlaces(t.mappings[first:last], pieces)
	t.mappings = slices.Replace(t.mappings, first, last, pieces...)
}

// firstEndingAfter is the number of the first mapping that ends after an address.
func (t *mappingTable) firstEndingAfter(a Address) int {
	i, _ := slices.BinarySearchFunc(t.mappings, a, func(o Mapping, a Address) int {
		if o.End <= a {
			return -1
		}
		return 1
	})
	return i
}

// overlaps says whether some mapping has an address of m.
func (t *mappingTable) overlaps(m *Mapping) bool {
	i := t.firstEndingAfter(m.Start)
	return i < len(t.mappings) && t.mappings[i].Start < m.End
}

func sameMapping(a, b Mapping) bool {
	return a.Start == b.Start && a.End == b.End && a.Offset == b.Offset && a.File == b.File
}

// sameCode says whether the same code is mapped at the same place.
func sameCode(a, b Mapping) bool {
	return a.Start == b.Start && a.End == b.End && a.Offset == b.Offset && a.File.same(b.File)
}

// replace takes a new reading of the whole table.
func (t *mappingTable) replace(mappings []Mapping, time uint64) {
	for _, m := range t.mappings {
		t.retire(m, time)
	}
	t.mappings, t.byPlace, t.shared = mappings, nil, false
	t.version++
	t.changed = time
}

func (t *mappingTable) retire(m Mapping, until uint64) {
	if len(t.retired) >= maxRetired {
		t.retired = slices.Clone(t.retired[maxRetired/2:])
	}
	t.retired = append(t.retired, retiredMapping{m, until})
}

// own makes the table this process's alone.
func (t *mappingTable) own() {
	if t.shared {
		places := slices.Clone(*t.byPlace)
		t.mappings, t.byPlace, t.shared = slices.Clone(t.mappings), &places, false
	}
}

// fork gives the child's table: the same until either changes it.
func (t *mappingTable) fork() mappingTable {
	t.shared = true
	if t.byPlace == nil {
		t.byPlace = new([]*Mapping)
	}
	return mappingTable{mappings: t.mappings, byPlace: t.byPlace, retired: slices.Clip(t.retired), shared: true}
}

// mapsEntry is one executable line of /proc/PID/maps.
type mapsEntry struct {
	mapping Mapping
	key     FileKey
	path    string
}

// readMaps reads the executable lines of /proc/PID/maps:
//
//	7f2c5a000000-7f2c5a155000 r-xp 00026000 fe:00 1234   /usr/lib/libc.so.6
//
// It stops at maxMappings. A path that the kernel marked " (deleted)" loses the mark.
func readMaps(r io.Reader) ([]mapsEntry, error) {
	var entries []mapsEntry
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 8<<10), 64<<10)
	for scanner.Scan() && len(entries) < maxMappings {
		e, executable, err := parseMapsLine(scanner.Bytes())
		if err != nil {
			return entries, err
		}
		if executable {
			entries = append(entries, e)
		}
	}
	if err := scanner.Err(); err != nil {
		return entries, fmt.Errorf("maps: %w", err)
	}
	return entries, nil
}

func parseMapsLine(line []byte) (e mapsEntry, executable bool, err error) {
	rest := line
	next := func() []byte {
		rest = bytes.TrimLeft(rest, " ")
		field, after, _ := bytes.Cut(rest, []byte{' '})
		rest = after
		return field
	}
	hex := func(b []byte) uint64 {
		v, parseErr := strconv.ParseUint(string(b), 16, 64)
		if parseErr != nil && err == nil {
			err = fmt.Errorf("maps line %q: %w", line, parseErr)
		}
		return v
	}
	span, perms := next(), next()
	if len(perms) < 3 || perms[2] != 'x' {
		return mapsEntry{}, false, nil
	}
	start, end, _ := bytes.Cut(span, []byte{'-'})
	e.mapping = Mapping{Start: Address(hex(start)), End: Address(hex(end)), Offset: objfile.FileOffset(hex(next()))}
	major, minor, _ := bytes.Cut(next(), []byte{':'})
	e.key.Major, e.key.Minor = uint32(hex(major)), uint32(hex(minor))
	inode := next()
	if e.key.Inode, err = parseInode(inode, line, err); err != nil {
		return mapsEntry{}, false, err
	}
	if e.mapping.End <= e.mapping.Start {
		return mapsEntry{}, false, fmt.Errorf("maps line %q: the end is before the start", line)
	}
	e.path = string(bytes.TrimSuffix(bytes.TrimLeft(rest, " "), []byte(" (deleted)")))
	return e, true, nil
}

func parseInode(inode, line []byte, before error) (uint64, error) {
	if before != nil {
		return 0, before
	}
	v, err := strconv.ParseUint(string(inode), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("maps line %q: %w", line, err)
	}
	return v, nil
}
