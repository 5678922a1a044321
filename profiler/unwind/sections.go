package unwind

import (
	"errors"
	"fmt"

	"github.com/pilotlight/pilotlight/symbolizer/callframe"
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
		in: callframe.NewCursor(data, addr),
	}
}

// segment finds .eh_frame without section headers, as the program itself does.
func (c *compiler) segment() (*section, error) {
	h, err := callframe.ReadHeader(c.file)
	if errors.Is(err, callframe.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return c.openSection(h.EHFrame)
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
