package destination

import (
	"log/slog"

	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"

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
	err := e.encoder.Encode(p, func(m *profilespb.ProfilesData) error {
		// ExportProfilesServiceRequest has the same fields under the same numbers.
		plain, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		h := queue.Header{Start: p.Start, End: p.Start.Add(p.Duration)}
		h.Samples, h.Items = contents(m)
		message := NewMessage(plain)
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

// contents counts the samples of a message of an Encoder, in whose resources the first profile is the one of counts, and its profiles.
func contents(m *profilespb.ProfilesData) (samples, profiles uint64) {
	for _, r := range m.ResourceProfiles {
		for _, scope := range r.ScopeProfiles {
			profiles += uint64(len(scope.Profiles))
			for _, s := range scope.Profiles[0].Samples {
				samples += uint64(len(s.TimestampsUnixNano))
				for _, v := range s.Values {
					samples += uint64(v)
				}
			}
		}
	}
	return samples, profiles
}
