package publish

import (
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Walk walks a stack that was copied, by the mappings that the process had when it was sampled. It appends the frames to frames, innermost
// first, all raw, each an address inside of its instruction, and says why the walk ended. Tables that are not there yet are waited for, a moment.
func (p *Publisher) Walk(proc *process.Process, c *bpf.CopiedStack, frames []bpf.Frame) ([]bpf.Frame, bpf.Reason) {
	s := coldStack{publisher: p, process: proc, sampled: c.TimeNs}
	w := unwind.Walker{Code: &s, Memory: c, PointerBits: pointerBits}
	var end bpf.Reason
	p.walked, end = w.Walk(machine, registers(c), p.walked[:0], bpf.MaxStackFrames)
	for _, f := range p.walked {
		frames = append(frames, bpf.RawFrame(f.LookupPC()))
	}
	return frames, end
}

// coldStack is the code of a process of which a stack was copied.
type coldStack struct {
	publisher *Publisher
	process   *process.Process
	sampled   uint64
}

// Rule finds that of the code which was mapped at an address.
func (s *coldStack) Rule(address uint64) (unwind.Rule, bpf.Reason) {
	p := s.publisher
	m, stale := p.processes.Find(s.process, process.Address(address), s.sampled)
	switch {
	case m == nil && stale:
		return unwind.Rule{}, bpf.ReasonStaleMapping
	case m == nil:
		return unwind.Rule{}, bpf.ReasonUnmappedPC
	case !m.File.Regular() && !m.File.VDSO():
		return unwind.FramePointerRule(machine), bpf.ReasonNone
	}
	id, reason := p.files.ID(p.processes, s.process, m)
	if reason != bpf.ReasonNone {
		return unwind.Rule{}, reason
	}
	now := time.Now()
	t := p.tableOf(id, s.process, m, now)
	p.await(t)
	return p.rule(t, m.FileOffset(process.Address(address)))
}

const (
	// coldWait is how long a sample waits for a table. Most files take a few milliseconds, the largest libraries some 200.
	coldWait = 250 * time.Millisecond
	// roundWait is how long all samples between two Updates wait: they come later, and so do those behind them.
	roundWait = 300 * time.Millisecond
	// meanwhilePause is how often Meanwhile's function is called: as for files that do not answer.
	meanwhilePause = 5 * time.Millisecond
)

// Prepare compiles the tables of processes that will be sampled, and waits for them, a moment. What else the programs have to be told comes
// with a process's first sample, the exec id: Want tells them of such a process at once.
func (p *Publisher) Prepare(pids []int) {
	var wanted []*table
	now := time.Now()
	for _, pid := range pids {
		proc := p.processes.At(pid, 0)
		if proc == nil {
			continue
		}
		p.prepared[proc] = true
		mappings := proc.Mappings()
		for i := range mappings {
			m := &mappings[i]
			if !m.File.Regular() && !m.File.VDSO() || p.compiler.full() {
				continue
			}
			if id, reason := p.files.ID(p.processes, proc, m); reason == bpf.ReasonNone {
				wanted = append(wanted, p.tableOf(id, proc, m, now))
			}
		}
	}
	for _, t := range wanted {
		p.await(t)
	}
}

// await waits for a table that is being compiled, once. What waits for words in their grace is not worth it.
func (p *Publisher) await(t *table) {
	if !t.compiling() {
		return
	}
	p.compiler.ask(t.file)
	if t.slow || p.patience == 0 {
		return
	}
	begun := time.Now()
	timer, ticker := time.NewTimer(min(coldWait, p.patience)), time.NewTicker(meanwhilePause)
	p.use(t) // whatever arrives with it does not take its place
	defer func() {
		timer.Stop()
		ticker.Stop()
		p.disuse([]*table{t}, time.Now())
		p.patience -= min(p.patience, time.Since(begun))
	}()
	for t.compiling() {
		select {
		case <-p.compiler.finished:
			p.arrive(time.Now())
		case <-ticker.C:
			if p.meanwhile != nil {
				p.meanwhile()
			}
		case <-timer.C:
			t.slow = true
			return
		}
	}
}

// rule looks a table's rule up, in the arena.
func (p *Publisher) rule(t *table, off objfile.FileOffset) (unwind.Rule, bpf.Reason) {
	switch t.code {
	case bpf.RuleNonePending:
		return unwind.Rule{}, bpf.ReasonTablePending
	case bpf.RuleNoneNoTable:
		return unwind.Rule{}, bpf.ReasonNoTable
	case jitCode:
		return unwind.FramePointerRule(machine), bpf.ReasonNone
	}
	for _, piece := range t.pieces {
		if off < piece.start || off >= piece.end {
			continue
		}
		var index [2]uint32
		arena := p.programs.Arena()
		if err := arena.Read(piece.index+uint32((off-piece.start)/pageBytes), index[:]); err != nil {
			break
		}
		rows := make([]uint32, index[1]-index[0])
		if err := arena.Read(index[0], rows); err != nil {
			break
		}
		if r := t.decoder.Decode(unwind.Search(rows, off)); r.Kind != unwind.Gap {
			return r, bpf.ReasonNone
		}
		break
	}
	return unwind.Rule{}, bpf.ReasonNoRule
}
