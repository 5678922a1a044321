package destination

import (
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
	err := e.encoder.Encode(p, func(m otlp.Message) error {
		h := queue.Header{Start: p.Start, End: p.Start.Add(p.Duration), Samples: m.Samples, Items: m.Profiles}
		message := NewMessage(m.Data)
		for _, d := range e.destinations {
			if err := d.Put(h, message); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.log.Error("a profile could not be encoded for OTLP and is not sent", "samples", p.Account.Exported, "err", err)
	}
}
