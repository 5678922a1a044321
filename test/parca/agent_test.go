package parca

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	profilesservicepb "go.opentelemetry.io/proto/otlp/collector/profiles/v1development"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/grpc"

	"github.com/pilotlight/pilotlight/test/received"
)

// Parca keeps of a real program what the agent sent, sample by sample, with times and without.
func TestParcaKeepsWhatTheAgentSends(t *testing.T) {
	target := received.StartTarget(t)
	for _, args := range [][]string{nil, {"--otlp-timestamps"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			t.Parallel()
			checkAgent(t, target, args...)
		})
	}
}

func checkAgent(t *testing.T, target received.Target, args ...string) {
	var mutex sync.Mutex
	var sent []row
	s := startParca(t, grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		mutex.Lock()
		defer mutex.Unlock()
		answer, err := handle(ctx, request)
		if err != nil {
			t.Errorf("Parca refuses a message: %v", err)
		}
		sent = append(sent, written(request.(*profilesservicepb.ExportProfilesServiceRequest))...)
		return answer, err
	}))
	target.Sample(t, func() bool {
		mutex.Lock()
		defer mutex.Unlock()
		var samples int64
		for _, r := range sent {
			samples += r.Value
		}
		return samples >= 100
	}, append(args, "--otlp-profiles-endpoint", "http://"+s.address)...)
	mutex.Lock()
	defer mutex.Unlock()
	got, want := s.kept.Rows(t), sent
	if one, other := received.Sums(got, apart), received.Sums(want, apart); !maps.Equal(one, other) {
		t.Errorf("Parca keeps\n%v\nof\n%v", one, other)
	}
	received.CheckFunctions(t, got, func(r *row) []received.Frame { return r.Frames })
	for _, r := range got {
		if r.Labels["service_name"] != "split" {
			t.Errorf("a sample of %v", r.Labels)
		}
	}
}

func apart(r *row) int64 {
	value := r.Value
	r.Value = 0
	return value
}

// written is what a message says, by the words of the protocol. Attributes that are no text, and arrays, are left out: Parca keeps none.
func written(request *profilesservicepb.ExportProfilesServiceRequest) (rows []row) {
	d := request.Dictionary
	text := func(i int32) string { return d.StringTable[i] }
	labels := func(to map[string]string, indices []int32) {
		for _, i := range indices {
			a := d.AttributeTable[i]
			label(to, text(a.KeyStrindex), a.Value)
		}
	}
	received.EachSample(request.ResourceProfiles, func(resource *profilespb.ResourceProfiles, p *profilespb.Profile, s *profilespb.Sample) {
		r := row{
			Type:  name + text(p.SampleType.TypeStrindex) + ":" + text(p.SampleType.UnitStrindex) + ":" + text(p.PeriodType.TypeStrindex) + ":" + text(p.PeriodType.UnitStrindex),
			Nanos: int64(p.TimeUnixNano), Duration: int64(p.DurationNano), Period: p.Period, Labels: make(map[string]string), Frames: received.Frames(d, s.StackIndex),
		}
		for _, a := range resource.Resource.Attributes {
			label(r.Labels, a.Key, a.Value)
		}
		labels(r.Labels, p.AttributeIndices)
		labels(r.Labels, s.AttributeIndices)
		for _, v := range s.Values {
			r.Value = v
			rows = append(rows, r)
		}
		for _, at := range s.TimestampsUnixNano {
			r.Nanos, r.Value = int64(at), 1
			rows = append(rows, r)
		}
	})
	return rows
}

func label(to map[string]string, key string, value *commonpb.AnyValue) {
	if v := value.GetStringValue(); v != "" {
		to[labelName.Replace(key)] = v
	}
}
