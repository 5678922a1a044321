package pyroscope

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/test/workloads"
)

// Pyroscope takes what the agent sends of a real program, by HTTP and by gRPC, and reads it sample by sample as it was written.
func TestPyroscopeReadsWhatTheAgentSends(t *testing.T) {
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
	for _, args := range [][]string{
		{"--otlp-protocol", "http/protobuf"},
		{"--otlp-protocol", "http/protobuf", "--otlp-timestamps"},
		{"--otlp-protocol", "grpc"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			checkAgent(t, binary, target.Process.Pid, args...)
		})
	}
}

func checkAgent(t *testing.T, binary string, pid int, args ...string) {
	r := startPyroscope(t, time.Now)
	var output bytes.Buffer
	agent := exec.Command(binary, append([]string{"agent", "--no-history", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--otlp-endpoint", r.url, "--otlp-metrics-interval", "1h", "-p", strconv.Itoa(pid)}, args...)...)
	agent.Stderr = &output
	start(t, agent)
	stop := func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	}
	const period = 10309278 // of 97 Hz
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var sum int64
		for _, row := range r.kept(t) {
			sum += row.Value
		}
		if sum >= 100*period {
			break
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("Pyroscope has %d ns\n%s", sum, output.String())
		}
	}
	stop() // nothing more comes
	got := r.kept(t)
	found := make(map[string]bool)
	for _, row := range got {
		if row.Labels["service_name"] != "split" || row.Labels["__name__"] != "process_cpu" {
			t.Errorf("a sample of %v", row.Labels)
		}
		for _, f := range row.Frames {
			found[f.Name] = true
		}
	}
	for _, name := range []string{"burn_a", "burn_b", "burn_c", "middle", "work", "main"} {
		if !found[name] {
			t.Errorf("no %s among %v", name, found)
		}
	}
	if len(r.bodies) == 0 {
		return // by gRPC
	}
	var want []row
	for _, body := range r.bodies {
		want = append(want, written(t, body)...)
	}
	if one, other := values(got), values(want); !maps.Equal(one, other) {
		t.Errorf("Pyroscope reads\n%v\nof\n%v", one, other)
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

// written is what a request says, by the words of the protocol, with samples worth the period each and labels in Pyroscope's letters.
func written(t *testing.T, body []byte) (rows []row) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var message profilespb.ProfilesData
	if err := proto.Unmarshal(data, &message); err != nil {
		t.Fatal(err)
	}
	d := message.Dictionary
	for _, resource := range message.ResourceProfiles {
		for _, scope := range resource.ScopeProfiles {
			for _, p := range scope.Profiles {
				for _, s := range p.Samples {
					r := row{
						Type: "cpu:nanoseconds:cpu:nanoseconds", Nanos: int64(p.TimeUnixNano), Duration: int64(p.DurationNano), Period: p.Period, Value: int64(len(s.TimestampsUnixNano)) * p.Period,
						Labels: map[string]string{"__name__": "process_cpu", "__delta__": "false", "__otel__": "true"},
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
					for _, i := range d.StackTable[s.StackIndex].LocationIndices {
						r.Frames = append(r.Frames, lines(d, d.LocationTable[i])...)
					}
					rows = append(rows, r)
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
			Mapping: d.StringTable[m.FilenameStrindex], BuildID: id,
		})
	}
	return frames
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
