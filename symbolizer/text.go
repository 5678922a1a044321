package symbolizer

import "github.com/pilotlight/pilotlight/symbolizer/objfile"

// AddressOf returns the ELF virtual address of a file offset.
func (m *Image) AddressOf(off objfile.FileOffset) (objfile.Address, bool) {
	return m.layout.AddressOf(off)
}

// Text returns the first executable segment; see objfile.Layout.Text.
func (m *Image) Text() (start objfile.Address, size uint64, off objfile.FileOffset, ok bool) {
	return m.layout.Text()
}
