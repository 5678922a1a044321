package parca

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/go-kit/log"
	parca "github.com/parca-dev/parca/pkg/profile"
	"github.com/parca-dev/parca/pkg/profilestore"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	profilesservicepb "go.opentelemetry.io/proto/otlp/collector/profiles/v1development"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // which a whole Parca has by its own tracing

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/test/received"
)

// row is what Parca keeps of a sample.
type row struct {
	Type          string // as one writes it in a query
	Nanos         int64
	Duration      int64
	Period, Value int64
	Labels        map[string]string
	Frames        []received.Frame // innermost first
}

// server is Parca's receiver of OTLP, listening. In the place of its database stands a list: what a query reads there is what was put there.
type server struct {
	address string
	kept    received.Kept[row]
}

func startParca(t *testing.T, options ...grpc.ServerOption) *server {
	t.Helper()
	schema, err := parca.Schema()
	if err != nil {
		t.Fatal(err)
	}
	s := new(server)
	store := profilestore.NewProfileColumnStore(prometheus.NewRegistry(), log.NewNopLogger(), noop.NewTracerProvider().Tracer(""), s, schema, memory.DefaultAllocator)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	g := grpc.NewServer(options...)
	profilesservicepb.RegisterProfilesServiceServer(g, store)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// Ingest takes what Parca made of a request.
func (s *server) Ingest(_ context.Context, record arrow.RecordBatch) error {
	rows, err := rowsOf(record)
	s.kept.Add(rows, err)
	return err
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }
func send(s *server, message []byte) error {
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return conn.Invoke(ctx, "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", message, nil, grpc.ForceCodec(raw{}), grpc.UseCompressor("gzip"))
}

// rowsOf reads a record as Parca's queries do.
func rowsOf(record arrow.RecordBatch) ([]row, error) {
	rows := make([]row, record.NumRows())
	parts := make([]map[string]string, len(rows))
	for i := range rows {
		rows[i].Labels, parts[i] = make(map[string]string), make(map[string]string)
	}
	for n, field := range record.Schema().Fields() {
		switch column := record.Column(n).(type) {
		case *array.List: // of stacks
			frames, err := framesOf(column)
			if err != nil {
				return nil, err
			}
			for i := range rows {
				rows[i].Frames = frames[i]
			}
		case *array.Dictionary:
			texts := column.Dictionary().(*array.Binary)
			for i := range rows {
				if column.IsNull(i) {
					continue
				}
				text := texts.ValueString(column.GetValueIndex(i))
				if label, ok := strings.CutPrefix(field.Name, parca.ColumnLabelsPrefix); ok {
					rows[i].Labels[label] = text
				} else {
					parts[i][field.Name] = text
				}
			}
		default:
			for i := range rows {
				number, err := numberAt(column, i)
				if err != nil {
					return nil, fmt.Errorf("column %s: %w", field.Name, err)
				}
				switch field.Name {
				case parca.ColumnTimeNanos:
					rows[i].Nanos = number
				case parca.ColumnDuration:
					rows[i].Duration = number
				case parca.ColumnPeriod:
					rows[i].Period = number
				case parca.ColumnValue:
					rows[i].Value = number
				}
			}
		}
	}
	for i, p := range parts {
		rows[i].Type = strings.Join([]string{p[parca.ColumnName], p[parca.ColumnSampleType], p[parca.ColumnSampleUnit], p[parca.ColumnPeriodType], p[parca.ColumnPeriodUnit]}, ":")
	}
	return rows, nil
}

func numberAt(column arrow.Array, i int) (int64, error) {
	c, ok := column.(*array.Int64)
	if !ok {
		return 0, fmt.Errorf("%T", column)
	}
	return c.Value(i), nil
}

// framesOf decodes stacks by Parca's own decoder.
func framesOf(stacks *array.List) ([][]received.Frame, error) {
	values := stacks.ListValues().(*array.Dictionary)
	encoded := values.Dictionary().(*array.Binary)
	out := make([][]received.Frame, stacks.Len())
	for i := range out {
		for j, end := stacks.ValueOffsets(i); j < end; j++ {
			frames, err := decode(encoded.Value(values.GetValueIndex(int(j))))
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], frames...)
		}
	}
	return out, nil
}

func decode(location []byte) ([]received.Frame, error) {
	w := parca.NewWriter(memory.DefaultAllocator, nil)
	defer w.Release()
	w.LocationsList.Append(true)
	w.Locations.Append(true)
	to := parca.LocationsWriter{
		MappingStart: w.MappingStart, MappingLimit: w.MappingLimit, MappingOffset: w.MappingOffset, MappingFile: w.MappingFile, MappingBuildID: w.MappingBuildID,
		Lines: w.Lines, Line: w.Line, LineNumber: w.LineNumber, ColumnNumber: w.ColumnNumber,
		FunctionName: w.FunctionName, FunctionSystemName: w.FunctionSystemName, FunctionFilename: w.FunctionFilename, FunctionStartLine: w.FunctionStartLine,
	}
	if _, err := parca.DecodeInto(to, location, nil); err != nil {
		return nil, err
	}
	about, _ := parca.DecodeSymbolizationInfo(location)
	w.Addresses.Append(about.Addr)
	for _, b := range []*array.Int64Builder{w.Value, w.Diff, w.TimeNanos, w.Period} {
		b.Append(0)
	}
	record := w.RecordBuilder.NewRecordBatch()
	defer record.Release()
	r, err := parca.NewRecordReader(record)
	if err != nil {
		return nil, err
	}
	text := func(indices *array.Uint32, texts *array.Binary, i int) string {
		if indices.IsNull(i) {
			return ""
		}
		return texts.ValueString(int(indices.Value(i)))
	}
	frames := make([]received.Frame, r.Line.Len())
	for i := range frames {
		frames[i] = received.Frame{
			Name: text(r.LineFunctionNameIndices, r.LineFunctionNameDict, i), System: text(r.LineFunctionSystemNameIndices, r.LineFunctionSystemNameDict, i),
			File: text(r.LineFunctionFilenameIndices, r.LineFunctionFilenameDict, i), Start: r.LineFunctionStartLine.Value(i), Line: r.LineNumber.Value(i),
			Address: r.Address.Value(0), Mapping: text(r.MappingFileIndices, r.MappingFileDict, 0), BuildID: text(r.MappingBuildIDIndices, r.MappingBuildIDDict, 0),
		}
	}
	return frames, nil
}

// example is received.Example with a label of its program.
func example() *profile.Profile {
	p := received.Example()
	p.Samples[0].Labels.Further = []profile.Attribute{{Key: "http.route", Value: "/users"}}
	return p
}

const name = "github_com_pilotlight_pilotlight:"

// labelName makes an attribute's key what Parca calls the label.
var labelName = strings.NewReplacer(".", "_", "-", "_")

// Parca keeps every sample of every process with its stack, its time and its labels, of messages with times and of those without.
func TestParcaKeepsWhatIsWritten(t *testing.T) {
	stacks := received.ExampleFrames()
	// Those that are no text, such as process.pid and thread.id, Parca leaves out; service.instance.id and thread.name stand for them.
	labels := [2]map[string]string{
		{"service_name": "app", "service_instance_id": "10", "process_title": "app", "process_executable_name": "app", "process_executable_path": "/usr/bin/app",
			"process_linux_cgroup": "/x.scope", "container_id": "0123", "thread_name": "worker", "http_route": "/users"},
		{"service_name": "other", "service_instance_id": "12", "process_title": "other"},
	}
	at := func(d time.Duration) int64 { return received.Began.Add(d).UnixNano() }
	kept := func(of int, kind string, nanos, value int64) row {
		return row{name + kind + ":cpu:nanoseconds", nanos, int64(10 * time.Second), 10309278, value, labels[of], stacks[of]}
	}
	for _, c := range []struct {
		times bool
		want  []row
	}{
		{false, []row{
			kept(0, "cpu:nanoseconds", at(0), 2*10309278), kept(0, "samples:count", at(0), 2),
			kept(1, "cpu:nanoseconds", at(0), 5), kept(1, "samples:count", at(0), 1),
		}},
		{true, []row{
			kept(0, "cpu:nanoseconds", at(0), 2*10309278), kept(0, "samples:count", at(0), 1), kept(0, "samples:count", at(10*time.Second-1), 1),
			kept(1, "cpu:nanoseconds", at(0), 5), kept(1, "samples:count", at(time.Second), 1),
		}},
	} {
		t.Run(fmt.Sprint("times=", c.times), func(t *testing.T) {
			s := startParca(t)
			received.Encode(t, example(), otlp.Options{Version: "v1.2.3", Timestamps: c.times, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples, Seed: [16]byte{1}}, func(data []byte) {
				if err := send(s, data); err != nil {
					t.Fatal(err)
				}
			})
			got := s.kept.Rows(t)
			order(got)
			received.CheckEqual(t, got, c.want)
			for _, r := range got {
				if q, err := parca.ParseQuery(r.Type + `:delta{service_name="app"}`); err != nil || !q.Delta || q.Meta.PeriodType != (parca.ValueType{Type: "cpu", Unit: "nanoseconds"}) {
					t.Errorf("%s is no type to ask for: %+v, %v", r.Type, q, err)
				}
			}
		})
	}
}

// A profile that takes several messages loses none, also where a sample was taken as it began: the later messages begin some nanoseconds after it.
func TestParcaKeepsAllMessages(t *testing.T) {
	p := example()
	template := p.Samples[0]
	p.Samples = nil
	for i := range 100 {
		s := template
		l := *template.Labels
		l.TID = i + 1
		s.Labels = &l
		p.Samples = append(p.Samples, s)
	}
	for _, times := range []bool{false, true} {
		s, messages := startParca(t), 0
		received.Encode(t, p, otlp.Options{Timestamps: times, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: 10}, func(data []byte) {
			messages++
			if err := send(s, data); err != nil {
				t.Fatalf("message %d: %v", messages, err)
			}
		})
		var sum int64
		for _, r := range s.kept.Rows(t) {
			sum += r.Value
		}
		if messages != 10 || sum != 200 {
			t.Errorf("times %v: %d samples of 200 in %d messages", times, sum, messages)
		}
	}
}

func order(rows []row) {
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.Labels["service_name"], b.Labels["service_name"]), strings.Compare(a.Type, b.Type), cmp.Compare(a.Nanos, b.Nanos))
	})
}
