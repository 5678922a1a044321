// Package expand opens the runtime's expansion of inlined calls, which runtime/pprof uses.
package expand

import _ "unsafe"

// Final adds the callers of the last pc where that is in an inlined call.
//
//go:linkname Final runtime/pprof.runtime_expandFinalInlineFrame
func Final(stk []uintptr) []uintptr
