package symbolizer

import (
	"strings"

	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
)

// knowsMoreThanGo reports whether t has functions that the Go pclntab lacks: those of C
// code, in a binary that uses cgo.
func (m *Image) knowsMoreThanGo(t *elfsym.Table) bool {
	for s := range t.All() {
		if strings.HasPrefix(s.Name, "go:") || strings.HasPrefix(s.Name, "runtime.") {
			continue // the Go linker's marks, such as go:buildid and runtime.etext
		}
		if !m.goTable.Names(s.Start) {
			return true
		}
	}
	return false
}
