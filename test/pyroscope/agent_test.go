package pyroscope

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/test/received"
)

// Pyroscope takes what the agent sends of a real program, by HTTP and by gRPC, and reads it sample by sample as it was written.
func TestPyroscopeReadsWhatTheAgentSends(t *testing.T) {
	target := received.StartTarget(t)
	for _, args := range [][]string{
		{"--otlp-protocol", "http/protobuf", "--otlp-compression", "none"},
		{"--otlp-protocol", "http/protobuf", "--otlp-compression", "none", "--otlp-timestamps"},
		{"--otlp-protocol", "grpc"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			checkAgent(t, target, args...)
		})
	}
}

func checkAgent(t *testing.T, target received.Target, args ...string) {
	r := startPyroscope(t, time.Now)
	const period = 10309278 // of 97 Hz
	target.Sample(t, func() bool {
		var sum int64
		for _, row := range r.kept.Rows(t) {
			sum += row.Value
		}
		return sum >= 100*period
	}, append(args, "--otlp-endpoint", r.url, "--otlp-metrics-interval", "1h")...)
	r.close()
	got := r.kept.Rows(t)
	received.CheckFunctions(t, got, func(r *row) []received.Frame { return r.Frames })
	for _, row := range got {
		if row.Labels["service_name"] != "split" || row.Labels["__name__"] != "process_cpu" {
			t.Errorf("a sample of %v", row.Labels)
		}
	}
	if len(r.bodies) == 0 {
		return // by gRPC
	}
	var want []row
	for _, body := range r.bodies {
		want = append(want, written(t, body)...)
	}
	if one, other := received.Sums(got, apart), received.Sums(want, apart); !maps.Equal(one, other) {
		t.Errorf("Pyroscope reads\n%v\nof\n%v", one, other)
	}
}

func apart(r *row) int64 {
	value := r.Value
	r.Value = 0
	return value
}

// written is what a request says, by the words of the protocol, with samples worth the period each and labels in Pyroscope's letters.
func written(t *testing.T, body []byte) (rows []row) {
	message := received.Message(t, body)
	d := message.Dictionary
	received.EachSample(message.ResourceProfiles, func(resource *profilespb.ResourceProfiles, p *profilespb.Profile, s *profilespb.Sample) {
		r := row{
			Type: "cpu:nanoseconds:cpu:nanoseconds", Nanos: int64(p.TimeUnixNano), Duration: int64(p.DurationNano), Period: p.Period, Value: int64(len(s.TimestampsUnixNano)) * p.Period,
			Labels: map[string]string{"__name__": "process_cpu", "__delta__": "false", "__otel__": "true"}, Frames: received.Frames(d, s.StackIndex),
		}
		for _, v := range s.Values {
			r.Value += v * p.Period
		}
		for _, a := range resource.Resource.Attributes {
			label(r.Labels, a.Key, a.Value)
		}
		for _, i := range s.AttributeIndices {
			label(r.Labels, d.StringTable[d.AttributeTable[i].KeyStrindex], d.AttributeTable[i].Value)
		}
		withoutAddresses(r.Frames)
		rows = append(rows, r)
	})
	return rows
}

func label(to map[string]string, key string, value *commonpb.AnyValue) {
	text := value.GetStringValue()
	if n := value.GetIntValue(); n != 0 {
		text = strconv.FormatInt(n, 10)
	}
	if text != "" {
		to[strings.ReplaceAll(key, ".", "_")] = text
	}
}
