package otlp

import (
	"fmt"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// add adds a sample, in parts where it has more times than a message holds.
func (b *batch) add(s profile.Sample) error {
	if !b.encoder.options.Timestamps || int64(len(s.Times)) != s.Count || b.profile.Start.IsZero() {
		s.Times = nil
	}
	most := len(s.Times)
	if limit := b.encoder.options.MaxBytes; limit != 0 {
		most = limit / 2 / 8 // a time takes 8 bytes, and the stack stands beside them
	}
	for most < len(s.Times) {
		part := s
		part.Times, s.Times = s.Times[:most], s.Times[most:]
		part.Count = int64(most)
		s.Count -= part.Count
		if err := b.put(part); err != nil {
			return err
		}
		s.Value = 0 // all of it stands beside the first part
	}
	return b.put(s)
}

// put adds a sample to this message, or else to the next.
func (b *batch) put(s profile.Sample) error {
	if b.fits(&s) {
		return nil
	}
	if b.message.samples > 0 {
		if err := b.flush(); err != nil {
			return err
		}
		if b.fits(&s) {
			return nil
		}
	}
	for frames := depth(&s) / 2; ; frames /= 2 {
		b.open()
		short := innermost(s, frames)
		if b.fits(&short) {
			return nil
		}
		if frames == 0 {
			return fmt.Errorf("make OTLP profile: a sample of process %d (%.40q) does not fit a message of %d bytes", b.process.pid, b.process.comm, b.encoder.options.MaxBytes)
		}
	}
}

// fits adds a sample if there is room for it, or else leaves the message without it. Nothing can be added then.
func (b *batch) fits(s *profile.Sample) bool {
	m, o := b.message, &b.encoder.options
	before := m.mark()
	if m.counts == nil {
		m.resource(b)
	}
	m.sample(b, s)
	if (o.MaxBytes == 0 || m.atMost() <= o.MaxBytes) && (o.MaxSamples == 0 || m.samples <= o.MaxSamples) {
		return true
	}
	m.cut(before)
	return false
}

func depth(s *profile.Sample) (frames int) {
	s.Walk(func(*profile.Location) { frames++ }, nil)
	return frames
}

// innermost leaves so many frames of a sample.
func innermost(s profile.Sample, frames int) profile.Sample {
	if s.Kernel != nil && len(s.Kernel.Locations) >= frames {
		s.Kernel = &profile.Stack{Locations: s.Kernel.Locations[:frames]}
		frames = 0
	} else if s.Kernel != nil {
		frames -= len(s.Kernel.Locations)
	}
	user := &profile.Stack{Truncated: pprof.TooDeep}
	if s.User != nil {
		user.Locations = s.User.Locations[:min(frames, len(s.User.Locations))]
	}
	s.User = user
	return s
}
