package destination

import (
	"errors"
	"log/slog"

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/queue"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// ProfileExporter encodes profiles, once for all destinations.
type ProfileExporter struct {
	encoder      *otlp.Encoder
	destinations []*Destination
	log          *slog.Logger
}

// NewProfileExporter hands profiles to destinations of [Profiles], as the encoder makes them.
func NewProfileExporter(e *otlp.Encoder, to []*Destination, log *slog.Logger) *ProfileExporter {
	return &ProfileExporter{e, to, log}
}

// Export returns when the profile is in the queue of every destination.
func (e *ProfileExporter) Export(p *profile.Profile) {
	h := queue.Header{Start: p.Start, End: p.Start.Add(p.Duration)}
	left := p.Account.Exported
	err := e.encoder.Encode(p, func(m otlp.Message) (err error) {
		h.Samples, h.Items = m.Samples, m.Profiles
		left -= m.Samples
		message := NewMessage(m.Data)
		for _, d := range e.destinations {
			err = errors.Join(err, d.Put(h, message))
		}
		return err
	})
	if err != nil {
		h.Samples, h.Items = left, 0
		for _, d := range e.destinations {
			if left > 0 {
				d.Lose(h)
			}
		}
		e.log.Error("a profile could not be encoded for OTLP and is not sent", "samples", left, "err", err)
	}
}
