package publish

import (
	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	machine     = objfile.EM_X86_64
	pointerBits = 0 // all
)

// registers are those of an interrupted thread.
func registers(c *bpf.CopiedStack) (r unwind.Registers) {
	r.Set(unwind.X86RIP, c.PC)
	r.Set(unwind.X86RSP, c.SP)
	r.Set(unwind.X86RBP, c.FP)
	r.Set(unwind.X86RBX, c.Base)
	return r
}
