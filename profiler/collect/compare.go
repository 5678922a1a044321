package collect

import (
	"slices"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
)

// A Comparison is one user stack, walked twice: by the BPF programs when it was sampled, and here from a copy of its
// memory.
type Comparison struct {
	Sample bpf.Sample
	// InBPF and InGo are the frames, native where the file is known, innermost first.
	InBPF, InGo             []bpf.Frame
	ReasonInBPF, ReasonInGo bpf.Reason
}

// Equal says whether both walks found the same.
func (c *Comparison) Equal() bool {
	return c.ReasonInBPF == c.ReasonInGo && slices.Equal(c.InBPF, c.InGo)
}

// compareWalks walks the copy of a stack that the programs walked as well.
func (n *namer) compareWalks(p *process.Process, s *bpf.Sample) {
	c, ok := n.copies[copyKeyOf(s)]
	if !ok || p == nil || s.Generation == 0 || s.UserStack == 0 {
		return
	}
	frames, err := n.read(s.UserStack)
	if err != nil {
		return
	}
	result := Comparison{Sample: *s, InBPF: slices.Clone(frames), ReasonInBPF: bpf.Reason(s.UserReason)}
	frames, result.ReasonInGo = n.publisher.Walk(p, &c, nil)
	for _, f := range frames {
		if m, _ := n.processes.Find(p, process.Address(f.Address()), s.TimeNs); m != nil && (m.File.Regular() || m.File.VDSO()) {
			if id, reason := n.files.ID(n.processes, p, m); reason == bpf.ReasonNone {
				f = bpf.NativeFrame(id, uint64(m.FileOffset(process.Address(f.Address()))))
			}
		}
		result.InGo = append(result.InGo, f)
	}
	n.compare(&result)
}
