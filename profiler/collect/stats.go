package collect

import (
	"context"
	"errors"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/publish"
)

// Stats is what the profiler counted since its start. Every term is counted
// where it happens; none is computed from others.
type Stats struct {
	BPF bpf.Counters
	// Fired estimates how often the events fired; see sampler.Fired.
	Fired uint64
	// Read are samples that came out of the ring, Filtered those among them
	// that are not of the target, Relabeled those that Options.Relabel dropped, Exported those handed to the sink.
	Read, Filtered, Relabeled, Exported, BadRecords uint64
	// BadCopies are stacks that were copied and came damaged.
	BadCopies uint64
	// SpansDropped are samples whose span a profile had no room for.
	SpansDropped uint64

	Naming    NamerStats
	Files     process.FileStats
	Table     process.Stats
	Unwind    publish.Stats
	Processes int
	Windows   int
	MapBytes  uint64
	// KernelNameBytes is the memory of the kernel's symbol table.
	KernelNameBytes int
	Rounds          uint64
	// TargetsEnded says that the target was processes, and none of them is left: no more samples come.
	TargetsEnded bool
}

// Lost are the samples lost, by reason, for every reason that can lose one.
func (s *Stats) Lost(r bpf.Reason) uint64 {
	switch r {
	case bpf.ReasonRingFull:
		return s.BPF.LostRingFull
	case bpf.ReasonBadRecord:
		return s.BadRecords
	}
	return 0
}

// Stats fetches what waits and gives the counts; after the end, the last ones.
// Safe for concurrent use.
func (c *Collector) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := c.do(ctx, func() { c.round(); s = c.measure() })
	if errors.Is(err, errStopped) {
		return c.last, nil
	}
	return s, err
}

func (c *Collector) measure() Stats {
	s := Stats{
		BPF:  c.counters,
		Read: c.read, Filtered: c.filtered, Relabeled: c.dropped, Exported: c.exported, BadRecords: c.sampler.BadRecords(), BadCopies: c.sampler.BadCopies(),
		Naming: c.namer.stats, Files: c.files.Stats, Table: c.processes.Stats, Unwind: c.publisher.Stats,
		Processes: c.processes.Len(), Windows: len(c.windows),
		KernelNameBytes: c.kernel.bytes(), Rounds: c.rounds,
		TargetsEnded: c.processes.Wanted != nil && !c.sampler.HasTargets(),
	}
	s.SpansDropped = c.spansDropped
	for w := range c.windows {
		s.SpansDropped += w.spansDropped
	}
	var err error
	if s.Fired, err = c.sampler.Fired(); err != nil {
		c.options.Log.Debug("cannot read the events' clocks", "err", err)
	}
	if s.MapBytes, err = c.sampler.MapBytes(); err != nil {
		c.options.Log.Debug("cannot read the size of BPF maps", "err", err)
	}
	return s
}
