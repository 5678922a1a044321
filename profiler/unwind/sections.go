package unwind

import (
	"errors"
	"fmt"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// sections finds what tells of frames: .eh_frame first, which is what the program itself unwinds by.
func (c *compiler) sections() ([]*section, error) {
	var sections []*section
	for _, name := range []string{".eh_frame", ".debug_frame"} {
		s, ok := c.file.Section(name)
		if !ok || s.Size == 0 {
			continue
		}
		data, err := c.file.InflatedData(s, maxSection)
		switch {
		case errors.Is(err, objfile.ErrNoBits): // a debug file, which has the section's header alone
			continue
		case errors.Is(err, objfile.ErrTooLarge):
			return nil, tooLarge("%v", err)
		case errors.Is(err, objfile.ErrCorrupt), errors.Is(err, objfile.ErrUnsupported):
			c.stats.Damage = append(c.stats.Damage, err)
			continue
		case err != nil:
			return nil, err
		}
		sections = append(sections, newSection(name, data, s.Addr))
	}
	if len(sections) > 0 {
		return sections, nil
	}
	s, err := c.segment()
	if err != nil || s == nil {
		return nil, err
	}
	return []*section{s}, nil
}

func newSection(name string, data []byte, addr objfile.Address) *section {
	return &section{
		name: name, debug: name == ".debug_frame", cies: make(map[int]*cie),
		in: cursor{data: data, addr: addr, end: len(data)},
	}
}

// segment finds .eh_frame without section headers, as the program itself does, through .eh_frame_hdr:
//
//	version u8 = 1, encoding of the pointer u8, of the count u8, of the table u8, pointer to .eh_frame
func (c *compiler) segment() (*section, error) {
	for _, s := range c.file.Segments() {
		if s.Type != objfile.PT_GNU_EH_FRAME {
			continue
		}
		var header [16]byte
		n, err := c.file.ReadAtAddress(header[:], s.Addr)
		if err != nil && !errors.Is(err, objfile.ErrNotMapped) {
			return nil, fmt.Errorf(".eh_frame_hdr: %w", err)
		}
		in := cursor{data: header[:n], addr: s.Addr, end: n}
		version, encoding := in.uint8(), in.uint8()
		in.take(2)
		start := in.pointer(encoding)
		if in.failed || version != 1 {
			return nil, nil
		}
		return c.openSection(start)
	}
	return nil, nil
}

// openSection reads from an address to the end of its segment.
func (c *compiler) openSection(start objfile.Address) (*section, error) {
	for _, s := range c.file.Segments() {
		if s.Type != objfile.PT_LOAD || start < s.Addr || uint64(start-s.Addr) >= s.FileSize {
			continue
		}
		rest := s.FileSize - uint64(start-s.Addr)
		data := make([]byte, min(rest, maxSection, uint64(c.file.Size())))
		n, err := c.file.ReadAtAddress(data, start)
		if err != nil && !errors.Is(err, objfile.ErrCorrupt) && !errors.Is(err, objfile.ErrNotMapped) {
			return nil, fmt.Errorf(".eh_frame: %w", err)
		}
		section := newSection(".eh_frame", data[:n], start)
		section.open = true
		return section, nil
	}
	return nil, nil
}
