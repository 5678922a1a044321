package publish

import (
	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	machine     = objfile.EM_AARCH64
	pointerBits = 48
)

// registers are those of an interrupted thread.
func registers(c *bpf.CopiedStack) (r unwind.Registers) {
	r.Set(unwind.ARM64PC, c.PC)
	r.Set(unwind.ARM64SP, c.SP)
	r.Set(unwind.ARM64FP, c.FP)
	r.Set(unwind.ARM64LR, c.Base)
	return r
}
