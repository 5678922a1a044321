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
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
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
)

// row is what Pyroscope makes of a sample.
type row struct {
	Type            string // and unit; and those of the period
	Nanos, Duration int64
	Period, Value   int64
	Labels          map[string]string // of the series, and of the sample in it
	Frames          []frame           // innermost first
}

// frame is a line of a location. Where functions have names Pyroscope keeps no addresses.
type frame struct {
	Name, System, File string
	Start, Line        int64
	Mapping, BuildID   string
}

// receiver is Pyroscope's receiver of OTLP, listening, with the limits that it has by default. In the place of its distributor stands a list: what comes there is checked,
// normalized and split into series by Pyroscope's own functions, as the distributor does.
type receiver struct {
	url    string
	limits *validation.Overrides
	now    func() time.Time
	mutex  sync.Mutex
	bodies [][]byte // of requests by HTTP
	rows   []row
	errs   []error
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
	r.url = s.URL
	return r
}

func (r *receiver) keepBody(request *http.Request) {
	body, err := io.ReadAll(request.Body)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	r.bodies = append(r.bodies, body)
}

// PushBatch takes what Pyroscope made of a profile.
func (r *receiver) PushBatch(_ context.Context, request *distributor.PushRequest) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, s := range request.Series {
		if err := r.push(s); err != nil {
			r.errs = append(r.errs, err)
			return err
		}
	}
	return nil
}

func (r *receiver) push(s *distributor.ProfileSeries) error {
	if _, err := validation.ValidateProfile(r.limits, tenant, s.Profile, s.Profile.SizeVT(), s.Labels, common.TimeFromUnixNano(r.now().UnixNano())); err != nil {
		return err
	}
	s.Profile.Normalize()
	return pprofsplit.VisitSampleSeries(s.Profile.Profile, s.Labels, nil, &visitor{r, s.Profile.Profile})
}

// visitor takes the series of a profile.
type visitor struct {
	r *receiver
	p *googlepb.Profile
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
				out.Frames = append(out.Frames, frame{text(f.Name), text(f.SystemName), text(f.Filename), f.StartLine, line.Line, text(m.Filename), text(m.BuildId)})
			}
		}
		v.r.rows = append(v.r.rows, out)
	}
}

func (*visitor) Discarded(int, int) {}

func (r *receiver) kept(t *testing.T) []row {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err := errors.Join(r.errs...); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(r.rows)
}

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

var began = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// soon is when profiles of that time are sent: Pyroscope takes none that are older than an hour.
func soon() time.Time { return began.Add(time.Minute) }

// example is a profile of two processes, with times: that of the tests with pdata, with a span.
func example() *profile.Profile {
	app := &profile.Mapping{Path: "/usr/bin/app", BuildID: "abcdef0123", EndsHash: "00112233445566778899aabbccddeeff", Start: 0x401000, Limit: 0x402000, Offset: 0x1000, HasFunctions: true, HasLines: true}
	kernel := &profile.Mapping{Path: "[kernel.kallsyms]", HasFunctions: true}
	line := func(name, file string, start, line int) profile.Line {
		return profile.Line{Function: &profile.Function{Name: name, File: file, StartLine: start}, Line: line}
	}
	read := &profile.Location{Kind: profile.FrameKernel, Mapping: kernel, Address: 0xffffffff81234567, Lines: []profile.Line{line("vfs_read", "", 0, 0)}}
	inlined := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401010, Lines: []profile.Line{line("leaf", "a.c", 10, 12), line("_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "a.c", 20, 25)}}
	unnamed := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401ff0, Lines: []profile.Line{line("[app+0x1ff0]", "", 0, 0)}, Unnamed: "no_symbol"}
	return &profile.Profile{
		Type: profile.TypeCPU, Start: began, Duration: 10 * time.Second, Period: 10309278,
		Samples: []profile.Sample{
			{Kernel: &profile.Stack{Locations: []*profile.Location{read}}, User: &profile.Stack{Locations: []*profile.Location{inlined, unnamed}},
				Labels: &profile.Labels{PID: 10, TID: 11, Comm: "app", Thread: "worker", Exe: "/usr/bin/app", Cgroup: "/x.scope", ContainerID: "0123",
					TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7", Further: []profile.Attribute{{Key: "http.route", Value: "/users"}}},
				Count: 2, Value: 2 * 10309278, Times: []time.Duration{0, 10*time.Second - 1}},
			{User: &profile.Stack{Locations: []*profile.Location{unnamed}, Truncated: "unmapped_pc"}, Labels: &profile.Labels{PID: 12, Comm: "other"},
				Count: 1, Value: 5, Times: []time.Duration{time.Second}},
		},
		Account: profile.Account{Taken: 4, Exported: 3, Lost: []profile.Loss{{Reason: "ring_full", Count: 1}}},
	}
}

// Pyroscope makes series of every process, with every sample, its stack and its labels, of messages with times and of those without: both are the same to it.
func TestPyroscopeReadsWhatIsWritten(t *testing.T) {
	unnamed := frame{"[app+0x1ff0]", "[app+0x1ff0]", "", 0, 0, "/usr/bin/app", "abcdef0123"}
	stacks := [2][]frame{
		{
			{"vfs_read", "vfs_read", "", 0, 0, "[kernel.kallsyms]", ""},
			{"leaf", "leaf", "a.c", 10, 12, "/usr/bin/app", "abcdef0123"},
			{"geo::area<geo::Circle, 7>", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "a.c", 20, 25, "/usr/bin/app", "abcdef0123"},
			unnamed,
		},
		{unnamed, {Name: "[truncated: unmapped pc]", System: "[truncated: unmapped pc]"}},
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
		return row{"cpu:nanoseconds:cpu:nanoseconds", began.UnixNano(), int64(10 * time.Second), 10309278, value, l, stacks[of]}
	}
	// What it shows as CPU of the process are the samples; values that are no multiple of the period are a type of their own.
	want := []row{kept(0, "cpu", 2*10309278), kept(0, "process_cpu", 2*10309278), kept(1, "cpu", 5), kept(1, "process_cpu", 10309278)}
	for _, times := range []bool{false, true} {
		t.Run(fmt.Sprint("times=", times), func(t *testing.T) {
			r := startPyroscope(t, soon)
			encode(t, example(), otlp.Options{Version: "v1.2.3", Timestamps: times, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples, Seed: [16]byte{1}}, func(data []byte) {
				if err := send(r, data); err != nil {
					t.Fatal(err)
				}
			})
			got := r.kept(t)
			slices.SortFunc(got, func(a, b row) int {
				return cmp.Or(strings.Compare(a.Labels["service_name"], b.Labels["service_name"]), strings.Compare(a.Labels["__name__"], b.Labels["__name__"]))
			})
			for i := range max(len(got), len(want)) {
				switch {
				case i >= len(got):
					t.Errorf("not there: %+v", want[i])
				case i >= len(want):
					t.Errorf("too much: %+v", got[i])
				case !reflect.DeepEqual(got[i], want[i]):
					t.Errorf("got\n%+v\nwant\n%+v", got[i], want[i])
				}
			}
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
		l.TID = i + 1
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
	encode(t, p, otlp.Options{MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples}, func(data []byte) {
		messages++
		if err := send(r, data); err != nil {
			t.Fatalf("message %d: %v", messages, err)
		}
	})
	var sum int64
	for _, s := range r.kept(t) {
		sum += s.Value
	}
	if want := 20_000 * 2 * p.Period; sum != want || messages < 2 {
		t.Errorf("%d of %d ns in %d messages", sum, want, messages)
	}
}

func encode(t *testing.T, p *profile.Profile, o otlp.Options, do func([]byte)) {
	t.Helper()
	e, err := otlp.NewEncoder(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Encode(p, func(m otlp.Message) error { do(m.Data); return nil }); err != nil {
		t.Fatal(err)
	}
}
