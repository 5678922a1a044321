package elfsym

import (
	"bytes"
	"fmt"
	"io"
)

// readNames gives the candidates of one table, sorted by st_name, their names. Those with
// a usable name are moved to the front, and their number is returned.
func (b *builder) readNames(candidates []candidate, t table) (kept int, err error) {
	r := stringReader{r: t.strings, size: min(t.stringsSize, maxStrings)}
	var last candidate // symbols with equal st_name share the bytes of their name
	lastStName := uint32(0)
	for i, c := range candidates {
		if c.name != lastStName {
			lastStName, last = c.name, candidate{}
			name, err := r.at(int64(c.name))
			if err != nil {
				b.dropped += uint64(len(candidates) - i)
				return kept, fmt.Errorf("names: %w", err)
			}
			if len(name) > 0 && len(name) <= maxName && len(b.names)+len(name) < maxNameBytes {
				last = b.addName(withoutVersion(name))
			}
		}
		if last.length == 0 {
			b.dropped++
			continue
		}
		c.name, c.length, c.underscores = last.name, last.length, last.underscores
		if c.kind == untyped && isCompilerLabel(b.names[c.name:]) {
			continue
		}
		candidates[kept] = c
		kept++
	}
	return kept, nil
}

// addName appends a name, and returns a candidate that has it.
func (b *builder) addName(name []byte) candidate {
	c := candidate{
		name:        uint32(len(b.names)),
		length:      uint16(len(name)),
		underscores: uint16(len(name) - len(bytes.TrimLeft(name, "_"))),
	}
	b.names = append(b.names, name...)
	b.names = append(b.names, 0)
	return c
}

// isCompilerLabel recognises the names of untyped symbols that mark places in code and name
// no function: .Lfoo and .annobin_foo, and the mapping symbols of arm64, which say where
// code ($x) and data ($d) begin and may have a suffix ($x.12). The name ends with a NUL.
func isCompilerLabel(name []byte) bool {
	if name[0] == '$' && (name[1] == 'x' || name[1] == 'd') {
		return name[2] == 0 || name[2] == '.'
	}
	return name[0] == '.'
}

// withoutVersion cuts the symbol version that ld writes into .symtab:
//
//	memcpy@@GLIBC_2.14    the default version
//	memcpy@GLIBC_2.2.5    an older one
//
// What does not look like a version stays.
func withoutVersion(name []byte) []byte {
	i := bytes.IndexByte(name, '@')
	if i <= 0 {
		return name
	}
	const maxVersion = 128
	version := bytes.TrimPrefix(name[i+1:], []byte("@"))
	if len(version) == 0 || len(version) > maxVersion {
		return name
	}
	for _, c := range version {
		if c != '_' && c != '.' && c != '-' && c != '+' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return name
		}
	}
	return name[:i]
}

// A stringReader reads names from a string table at ascending offsets, in one pass over the
// table whatever the offsets are: names may overlap (linkers share tails), and a table may
// have no NUL at all.
type stringReader struct {
	r    io.ReaderAt
	size int64

	window      []byte // table[base : base+len(window)]
	base        int64
	scanned     int64 // no NUL in [the last offset, scanned)
	endsScanned bool  // a NUL stands at scanned
}

// stringWindow is eight of the longest names, so that reading overlaps by an eighth at most.
const stringWindow = 8 * maxName

// at returns the name at off, without its NUL, valid until the next call; more than
// maxName bytes if it is longer than that, and nil beyond the table.
func (s *stringReader) at(off int64) ([]byte, error) {
	if off >= s.size {
		return nil, nil
	}
	limit := min(off+maxName+1, s.size)
	if off < s.base || limit > s.base+int64(len(s.window)) {
		if err := s.load(off); err != nil {
			return nil, err
		}
	}
	if from := max(off, s.scanned); from > s.scanned || !s.endsScanned {
		n := -1
		if from < limit {
			n = bytes.IndexByte(s.window[from-s.base:limit-s.base], 0)
		}
		s.endsScanned = n >= 0
		if s.endsScanned {
			s.scanned = from + int64(n)
		} else {
			s.scanned = max(from, limit)
		}
	}
	if !s.endsScanned && s.scanned == s.size {
		return nil, nil // cut off by the end of the table: no name
	}
	return s.window[off-s.base : s.scanned-s.base], nil
}

func (s *stringReader) load(off int64) error {
	if s.window == nil {
		s.window = make([]byte, 0, min(stringWindow, s.size))
	}
	n := min(int64(cap(s.window)), s.size-off)
	s.base = off
	s.window = s.window[:n]
	if got, err := s.r.ReadAt(s.window, off); int64(got) < n {
		s.window = s.window[:0]
		return fmt.Errorf("%d bytes at offset %#x of the string table: %w", n, off, readError(err))
	}
	return nil
}
