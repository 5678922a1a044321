package parca

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	profilesservicepb "go.opentelemetry.io/proto/otlp/collector/profiles/v1development"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/grpc"

	"github.com/pilotlight/pilotlight/test/workloads"
)

// Parca keeps of a real program what the agent sent, sample by sample, with times and without.
func TestParcaKeepsWhatTheAgentSends(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "pilotlight")
	build := exec.Command("go", "build", "-o", binary, "./cmd/pilotlight")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := workloads.Builder{Source: "../workloads", Output: dir}.Build("split")
	if err != nil {
		t.Fatal(err)
	}
	target := exec.Command(program, "120")
	start(t, target)
	for _, args := range [][]string{nil, {"--otlp-timestamps"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			t.Parallel()
			checkAgent(t, binary, target.Process.Pid, args...)
		})
	}
}

func checkAgent(t *testing.T, binary string, pid int, args ...string) {
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
	var output bytes.Buffer
	agent := exec.Command(binary, append([]string{"agent", "--no-history", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--otlp-profiles-endpoint", "http://" + s.address, "-p", fmt.Sprint(pid)}, args...)...)
	agent.Stderr = &output
	start(t, agent)
	received := func() (samples int64) {
		mutex.Lock()
		defer mutex.Unlock()
		for _, r := range sent {
			samples += r.Value
		}
		return samples
	}
	for deadline := time.Now().Add(time.Minute); received() < 100; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = agent.Process.Kill()
			_ = agent.Wait()
			t.Fatalf("the agent sent %d samples\n%s", received(), output.String())
		}
	}
	_ = agent.Process.Kill() // nothing more comes
	_ = agent.Wait()
	mutex.Lock()
	defer mutex.Unlock()
	got, want := s.kept(t), sent
	if one, other := values(got), values(want); !maps.Equal(one, other) {
		t.Errorf("Parca keeps\n%v\nof\n%v", one, other)
	}
	found := make(map[string]bool)
	for _, r := range got {
		if r.Labels["service_name"] != "split" {
			t.Errorf("a sample of %v", r.Labels)
		}
		for _, f := range r.Frames {
			found[f.Name] = true
		}
	}
	for _, name := range []string{"burn_a", "burn_b", "burn_c", "middle", "work", "main"} {
		if !found[name] {
			t.Errorf("no %s among %v", name, found)
		}
	}
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// values adds up the samples that are alike in all but their value.
func values(rows []row) map[string]int64 {
	sums := make(map[string]int64)
	for _, r := range rows {
		value := r.Value
		r.Value = 0
		sums[fmt.Sprintf("%+v", r)] += value
	}
	return sums
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
	for _, resource := range request.ResourceProfiles {
		for _, scope := range resource.ScopeProfiles {
			for _, p := range scope.Profiles {
				for _, s := range p.Samples {
					r := row{
						Type:  name + text(p.SampleType.TypeStrindex) + ":" + text(p.SampleType.UnitStrindex) + ":" + text(p.PeriodType.TypeStrindex) + ":" + text(p.PeriodType.UnitStrindex),
						Nanos: int64(p.TimeUnixNano), Duration: int64(p.DurationNano), Period: p.Period, Labels: make(map[string]string),
					}
					for _, a := range resource.Resource.Attributes {
						label(r.Labels, a.Key, a.Value)
					}
					labels(r.Labels, p.AttributeIndices)
					labels(r.Labels, s.AttributeIndices)
					for _, i := range d.StackTable[s.StackIndex].LocationIndices {
						r.Frames = append(r.Frames, lines(d, d.LocationTable[i])...)
					}
					for _, v := range s.Values {
						r.Value = v
						rows = append(rows, r)
					}
					for _, at := range s.TimestampsUnixNano {
						r.Nanos, r.Value = int64(at), 1
						rows = append(rows, r)
					}
				}
			}
		}
	}
	return rows
}

func lines(d *profilespb.ProfilesDictionary, l *profilespb.Location) (frames []frame) {
	m := d.MappingTable[l.MappingIndex]
	var id string
	for _, i := range m.AttributeIndices {
		if a := d.AttributeTable[i]; d.StringTable[a.KeyStrindex] == "process.executable.build_id.gnu" {
			id = a.Value.GetStringValue()
		}
	}
	for _, line := range l.Lines {
		f := d.FunctionTable[line.FunctionIndex]
		frames = append(frames, frame{
			Name: d.StringTable[f.NameStrindex], System: d.StringTable[f.SystemNameStrindex], File: d.StringTable[f.FilenameStrindex], Start: f.StartLine, Line: line.Line,
			Address: l.Address, Mapping: d.StringTable[m.FilenameStrindex], BuildID: id,
		})
	}
	return frames
}

func label(to map[string]string, key string, value *commonpb.AnyValue) {
	if v := value.GetStringValue(); v != "" {
		to[labelName.Replace(key)] = v
	}
}
