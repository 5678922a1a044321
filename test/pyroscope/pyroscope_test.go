package pyroscope

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/server"
	"github.com/grafana/dskit/user"
	googlepb "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	distributor "github.com/grafana/pyroscope/pkg/distributor/model"
	pyroscope "github.com/grafana/pyroscope/pkg/ingester/otlp"
	"github.com/grafana/pyroscope/pkg/model"
	"github.com/grafana/pyroscope/pkg/model/pprofsplit"
	"github.com/grafana/pyroscope/pkg/validation"
	common "github.com/prometheus/common/model"

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/test/received"
)

// row is what Pyroscope makes of a sample.
type row struct {
	Type            string // and unit; and those of the period
	Nanos, Duration int64
	Period, Value   int64
	Labels          map[string]string // of the series, and of the sample in it
	Frames          []received.Frame  // innermost first, without addresses
}

// receiver is Pyroscope's receiver of OTLP, listening, with the limits that it has by default. In the place of its distributor stands a list: what comes there is checked,
// normalized and split into series by Pyroscope's own functions, as the distributor does.
type receiver struct {
	url    string
	close  func() // waits for the requests under way
	limits *validation.Overrides
	now    func() time.Time
	kept   received.Kept[row]
	mutex  sync.Mutex
	bodies [][]byte // of requests by HTTP
}

const tenant = "anonymous" // where Pyroscope has no tenants

func startPyroscope(t *testing.T, now func() time.Time) *receiver {
	t.Helper()
	var config server.Config
	var defaults validation.Limits
	flagext.DefaultValues(&config, &defaults)
	limits, err := validation.NewOverrides(defaults, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{limits: limits, now: now}
	handler := pyroscope.NewOTLPIngestHandler(config, r, log.NewNopLogger(), limits)
	mux := http.NewServeMux()
	for _, path := range []string{"/v1development/profiles", "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, request *http.Request) {
			if request.ProtoMajor == 1 {
				r.keepBody(request)
			}
			handler.ServeHTTP(w, request.WithContext(user.InjectOrgID(request.Context(), tenant)))
		})
	}
	s := httptest.NewUnstartedServer(mux)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	r.url, r.close = s.URL, s.Close
	return r
}

func (r *receiver) keepBody(request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil { // the agent was killed
		request.Body = io.NopCloser(iotest.ErrReader(err))
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	request.Body = io.NopCloser(bytes.NewReader(body))
	r.bodies = append(r.bodies, body)
}

// PushBatch takes what Pyroscope made of a profile.
func (r *receiver) PushBatch(_ context.Context, request *distributor.PushRequest) error {
	for _, s := range request.Series {
		rows, err := r.push(s)
		r.kept.Add(rows, err)
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) push(s *distributor.ProfileSeries) ([]row, error) {
	if _, err := validation.ValidateProfile(r.limits, tenant, s.Profile, s.Profile.SizeVT(), s.Labels, common.TimeFromUnixNano(r.now().UnixNano())); err != nil {
		return nil, err
	}
	s.Profile.Normalize()
	v := &visitor{r: r, p: s.Profile.Profile}
	err := pprofsplit.VisitSampleSeries(v.p, s.Labels, nil, v)
	return v.rows, err
}

// visitor takes the series of a profile.
type visitor struct {
	r    *receiver
	p    *googlepb.Profile
	rows []row
}

func (v *visitor) ValidateLabels(labels model.Labels) (model.Labels, error) {
	return validation.ValidateLabels(v.r.limits, tenant, labels, log.NewNopLogger())
}

func (v *visitor) VisitProfile(labels model.Labels) { v.VisitSampleSeries(labels, v.p.Sample) }

func (v *visitor) VisitSampleSeries(labels model.Labels, samples []*googlepb.Sample) {
	text := func(i int64) string { return v.p.StringTable[i] }
	for _, s := range samples {
		of := make(map[string]string)
		for _, l := range labels {
			of[l.Name] = l.Value
		}
		for _, l := range s.Label {
			of[text(l.Key)] = text(l.Str)
		}
		out := row{
			Nanos: v.p.TimeNanos, Duration: v.p.DurationNanos, Period: v.p.Period, Value: s.Value[0], Labels: of,
			Type: strings.Join([]string{text(v.p.SampleType[0].Type), text(v.p.SampleType[0].Unit), text(v.p.PeriodType.Type), text(v.p.PeriodType.Unit)}, ":"),
		}
		for _, id := range s.LocationId {
			l := v.p.Location[id-1]
			m := v.p.Mapping[l.MappingId-1]
			for _, line := range l.Line {
				f := v.p.Function[line.FunctionId-1]
				out.Frames = append(out.Frames, received.Frame{Name: text(f.Name), System: text(f.SystemName), File: text(f.Filename), Start: f.StartLine, Line: line.Line, Mapping: text(m.Filename), BuildID: text(m.BuildId)})
			}
		}
		v.rows = append(v.rows, out)
	}
}

// withoutAddresses leaves what Pyroscope keeps of frames whose functions have names.
func withoutAddresses(frames []received.Frame) {
	for i := range frames {
		frames[i].Address = 0
	}
}

func (*visitor) Discarded(int, int) {}

// send sends bytes as they are.
func send(r *receiver, message []byte) error {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(message)
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, r.url+"/v1development/profiles", &zipped)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Content-Encoding", "gzip")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}

// soon is when profiles of that time are sent: Pyroscope takes none that are older than an hour.
func soon() time.Time { return received.Began.Add(time.Minute) }

// example is received.Example with a span and a label of its program.
func example() *profile.Profile {
	p := received.Example()
	l := p.Samples[0].Labels
	l.TraceID, l.SpanID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	l.Further = []profile.Attribute{{Key: "http.route", Value: "/users"}}
	return p
}

// Pyroscope makes series of every process, with every sample, its stack and its labels, of messages with times and of those without: both are the same to it.
func TestPyroscopeReadsWhatIsWritten(t *testing.T) {
	stacks := received.ExampleFrames()
	for _, frames := range stacks {
		withoutAddresses(frames)
	}
	labels := [2]map[string]string{
		{"service_name": "app", "service_instance_id": "10", "process_pid": "10", "process_title": "app", "process_executable_name": "app", "process_executable_path": "/usr/bin/app",
			"process_linux_cgroup": "/x.scope", "container_id": "0123", "thread_name": "worker", "thread_id": "11", "http_route": "/users",
			"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"},
		{"service_name": "other", "service_instance_id": "12", "process_pid": "12", "process_title": "other"},
	}
	kept := func(of int, name string, value int64) row {
		l := map[string]string{"__name__": name, "__delta__": "false", "__otel__": "true"}
		for key, value := range labels[of] {
			l[key] = value
		}
		return row{"cpu:nanoseconds:cpu:nanoseconds", received.Began.UnixNano(), int64(10 * time.Second), 10309278, value, l, stacks[of]}
	}
	// What it shows as CPU of the process are the samples; values that are no multiple of the period are a type of their own.
	want := []row{kept(0, "cpu", 2*10309278), kept(0, "process_cpu", 2*10309278), kept(1, "cpu", 5), kept(1, "process_cpu", 10309278)}
	for _, times := range []bool{false, true} {
		t.Run(fmt.Sprint("times=", times), func(t *testing.T) {
			r := startPyroscope(t, soon)
			received.Encode(t, example(), otlp.Options{Version: "v1.2.3", Timestamps: times, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples, Seed: [16]byte{1}}, func(data []byte) {
				if err := send(r, data); err != nil {
					t.Fatal(err)
				}
			})
			got := r.kept.Rows(t)
			slices.SortFunc(got, func(a, b row) int {
				return cmp.Or(strings.Compare(a.Labels["service_name"], b.Labels["service_name"]), strings.Compare(a.Labels["__name__"], b.Labels["__name__"]))
			})
			received.CheckEqual(t, got, want)
		})
	}
}

// Whatever a process says of itself, and however much, no message is refused for it; what is large comes in several messages, of which Pyroscope takes each.
func TestPyroscopeTakesAsMuchAsIsSent(t *testing.T) {
	p := example()
	template := p.Samples[0]
	p.Samples = nil
	for i := range 20_000 {
		l := *template.Labels
		l.TID, l.PodUID, l.Unit = i+1, "8d6f8c1e-0000-4000-8000-000000000000", "x.service"
		for _, key := range []string{"trace_id", "span_id", "pprof.profile.comment"} {
			l.Resource = append(l.Resource, profile.Attribute{Key: key, Value: "forged"})
		}
		for n := range 40 {
			l.Resource = append(l.Resource, profile.Attribute{Key: fmt.Sprintf("said-%d", n), Value: "by the process"})
			l.Further = append(l.Further, profile.Attribute{Key: fmt.Sprintf("further/%d", n), Value: "by the program"})
		}
		l.Further = append([]profile.Attribute{{Key: "said.1", Value: "otherwise"}, {Key: "service_name", Value: "forged"}, {Key: "thread_name", Value: "forged"}}, l.Further...)
		s := template
		s.Labels = &l
		p.Samples = append(p.Samples, s)
	}
	r, messages := startPyroscope(t, soon), 0
	received.Encode(t, p, otlp.Options{MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples}, func(data []byte) {
		messages++
		if err := send(r, data); err != nil {
			t.Fatalf("message %d: %v", messages, err)
		}
	})
	var sum int64
	for _, s := range r.kept.Rows(t) {
		sum += s.Value
	}
	if want := 20_000 * 2 * p.Period; sum != want || messages < 2 {
		t.Errorf("%d of %d ns in %d messages", sum, want, messages)
	}
}
