// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/exporter/destination/receiver"
	"github.com/pilotlight/pilotlight/test/received"
)

// buildCollector builds the OpenTelemetry Collector of the folder collector, from Go modules.
var buildCollector = sync.OnceValues(func() (string, error) {
	path := filepath.Join(folder, "collector")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir, cmd.Env = "collector", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the Collector: %w\n%s", err, out)
	}
	return path, nil
})

// collector is a running Collector that writes what it receives.
type collector struct {
	dir        string
	grpc, http string // addresses
	cmd        *exec.Cmd
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	path, err := buildCollector()
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{dir: t.TempDir(), grpc: freeAddress(t), http: freeAddress(t)}
	config := filepath.Join(c.dir, "config.yaml")
	text := fmt.Sprintf(`
receivers:
  otlp:
    protocols:
      grpc: {endpoint: %q}
      http: {endpoint: %q}
exporters:
  file/profiles: {path: %q}
  file/metrics: {path: %q}
service:
  pipelines:
    profiles: {receivers: [otlp], exporters: [file/profiles]}
    metrics: {receivers: [otlp], exporters: [file/metrics]}
`, c.grpc, c.http, c.file("profiles"), c.file("metrics"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(path, "--config", config, "--feature-gates=service.profilesSupport")
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	for _, address := range []string{c.grpc, c.http} {
		waitFor(t, "the Collector at "+address, func() bool {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			return conn.Close() == nil
		})
	}
	return c
}

// stop ends it in order, so that all it received is in its files.
func (c *collector) stop() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	_ = c.cmd.Wait()
	c.cmd = nil
}

func (c *collector) file(signal string) string { return filepath.Join(c.dir, signal+".json") }

// lines are the messages of a signal, decoded.
func lines[T any](t *testing.T, path string) []*T {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []*T
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		m := new(T)
		if err := json.Unmarshal(scanner.Bytes(), m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func freeAddress(t *testing.T) string {
	t.Helper()
	// Of an address that connections do not begin at, and a port that the kernel gives to nobody who asks for any: one could take it in the meantime.
	const lowest, highest = 10_000, 30_000
	for {
		address := fmt.Sprintf("127.%d.%d.2:%d", 1+rand.IntN(254), rand.IntN(255), lowest+rand.IntN(highest-lowest))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(hang); !ready(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, hang)
		}
	}
}

// The JSON of OTLP, as far as the tests look at it. 64-bit numbers are text there. The Collector writes keys and strings of attributes as
// references into the dictionary.
type (
	otlpNumber int64
	otlpValue  struct {
		StringValue         *string
		StringValueStrindex *int
		IntValue            *otlpNumber
		BoolValue           *bool
		ArrayValue          *struct{ Values []otlpValue }
	}
	otlpAttribute struct {
		Key         string
		KeyStrindex int
		Value       otlpValue
	}
	otlpDictionary struct {
		MappingTable []struct {
			FilenameStrindex int
			AttributeIndices []int
		}
		LocationTable []struct {
			MappingIndex     int
			Address          otlpNumber
			Lines            []struct{ FunctionIndex, Line otlpNumber }
			AttributeIndices []int
		}
		FunctionTable  []struct{ NameStrindex, SystemNameStrindex, FilenameStrindex int }
		LinkTable      []struct{ TraceID, SpanID string }
		StringTable    []string
		AttributeTable []struct {
			KeyStrindex int
			Value       otlpValue
		}
		StackTable []struct{ LocationIndices []int }
	}
	otlpProfile struct {
		SampleType, PeriodType struct{ TypeStrindex, UnitStrindex int }
		Period                 otlpNumber
		TimeUnixNano           otlpNumber
		DurationNano           otlpNumber
		ProfileID              string
		Samples                []struct {
			StackIndex, LinkIndex int
			Values                []otlpNumber
			AttributeIndices      []int
			TimestampsUnixNano    []otlpNumber
		}
	}
	otlpProfiles struct {
		ResourceProfiles []struct {
			Resource      struct{ Attributes []otlpAttribute }
			ScopeProfiles []struct {
				Scope    struct{ Name, Version string }
				Profiles []otlpProfile
			}
		}
		Dictionary otlpDictionary
	}
	otlpMetrics struct {
		ResourceMetrics []struct {
			Resource     struct{ Attributes []otlpAttribute }
			ScopeMetrics []struct {
				Metrics []struct {
					Name, Unit string
					Sum, Gauge *struct {
						DataPoints []struct {
							Attributes []otlpAttribute
							AsInt      otlpNumber
							AsDouble   float64
						}
					}
				}
			}
		}
	}
)

func (n *otlpNumber) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(text), `"`), 10, 64)
	if err != nil { // the largest addresses
		var u uint64
		u, err = strconv.ParseUint(strings.Trim(string(text), `"`), 10, 64)
		v = int64(u)
	}
	*n = otlpNumber(v)
	return err
}

func (d *otlpDictionary) text(v otlpValue) string {
	switch {
	case v.StringValue != nil:
		return *v.StringValue
	case v.StringValueStrindex != nil:
		return d.StringTable[*v.StringValueStrindex]
	case v.IntValue != nil:
		return strconv.FormatInt(int64(*v.IntValue), 10)
	case v.BoolValue != nil:
		return strconv.FormatBool(*v.BoolValue)
	}
	return ""
}

func (d *otlpDictionary) attributes(list []otlpAttribute) map[string]string {
	all := make(map[string]string)
	for _, a := range list {
		key := a.Key
		if key == "" && d != nil {
			key = d.StringTable[a.KeyStrindex]
		}
		all[key] = d.text(a.Value)
	}
	return all
}

func (d *otlpDictionary) indexed(indices []int) map[string]string {
	all := make(map[string]string)
	for _, i := range indices {
		all[d.StringTable[d.AttributeTable[i].KeyStrindex]] = d.text(d.AttributeTable[i].Value)
	}
	return all
}

func (d *otlpDictionary) link(t *testing.T, i int) *profilespb.Link {
	t.Helper()
	if i == 0 {
		return &profilespb.Link{}
	}
	trace, err := hex.DecodeString(d.LinkTable[i].TraceID)
	if err != nil || len(trace) != 16 {
		t.Fatalf("trace %q: %v", d.LinkTable[i].TraceID, err)
	}
	span, err := hex.DecodeString(d.LinkTable[i].SpanID)
	if err != nil || len(span) != 8 {
		t.Fatalf("span %q: %v", d.LinkTable[i].SpanID, err)
	}
	return &profilespb.Link{TraceId: trace, SpanId: span}
}

// arrived is what came of the samples of one process.
type arrived struct {
	samples   int64
	innermost map[string]int64 // by function
	threads   map[string]int64
	kinds     map[string]int64
	timed     int64
	linked    int64        // samples with a link
	spans     []spanSample // of those with times
	resource  map[string]string
	ids       map[string]bool // of profiles
}

// profilesOf adds up what the Collector wrote, and checks what holds for each message: an alone-standing dictionary, a name for each frame.
func profilesOf(t *testing.T, messages []*otlpProfiles) map[string]*arrived {
	t.Helper()
	offset := monotonic(t, 0)
	of := make(map[string]*arrived)
	for _, m := range messages {
		d := &m.Dictionary
		for _, r := range m.ResourceProfiles {
			resource := d.attributes(r.Resource.Attributes)
			a := of[resource["process.pid"]]
			if a == nil {
				a = &arrived{resource: resource, innermost: make(map[string]int64), threads: make(map[string]int64), kinds: make(map[string]int64), ids: make(map[string]bool)}
				of[resource["process.pid"]] = a
			}
			for _, scope := range r.ScopeProfiles {
				p := scope.Profiles[0]
				if kind, unit := d.StringTable[p.SampleType.TypeStrindex], d.StringTable[p.SampleType.UnitStrindex]; kind != "samples" || unit != "count" {
					t.Errorf("the first profile is of %s in %s", kind, unit)
				}
				if kind, unit := d.StringTable[p.PeriodType.TypeStrindex], d.StringTable[p.PeriodType.UnitStrindex]; kind != "cpu" || unit != "nanoseconds" || p.Period == 0 {
					t.Errorf("its period is %d of %s in %s", p.Period, kind, unit)
				}
				if len(p.ProfileID) != 32 || a.ids[p.ProfileID] {
					t.Errorf("profile id %q is none, or came twice", p.ProfileID)
				}
				a.ids[p.ProfileID] = true
				for _, s := range p.Samples {
					n := int64(len(s.TimestampsUnixNano))
					for _, at := range s.TimestampsUnixNano {
						if at < p.TimeUnixNano || at > p.TimeUnixNano+p.DurationNano {
							t.Errorf("a sample %d ns after the start of a profile of %d ns", at-p.TimeUnixNano, p.DurationNano)
						}
					}
					a.timed += n
					link := d.link(t, s.LinkIndex)
					for _, at := range s.TimestampsUnixNano {
						a.spans = append(a.spans, spanSample{time: int64(at) + offset, link: link})
					}
					for _, v := range s.Values {
						n += int64(v)
					}
					a.samples += n
					if len(link.SpanId) > 0 {
						a.linked += n
					}
					a.threads[d.indexed(s.AttributeIndices)["thread.name"]] += n
					for i, l := range d.StackTable[s.StackIndex].LocationIndices {
						location := d.LocationTable[l]
						if len(location.Lines) == 0 {
							t.Fatalf("a frame without a function")
						}
						name := d.StringTable[d.FunctionTable[location.Lines[0].FunctionIndex].NameStrindex]
						if name == "" {
							t.Fatalf("a function without a name")
						}
						if i == 0 {
							a.innermost[name] += n
						}
						a.kinds[d.indexed(location.AttributeIndices)["profile.frame.type"]] += n
					}
				}
			}
		}
	}
	return of
}

// What a real Collector received of a real agent: by gRPC and by HTTP, with every compression, all samples, whose they are and what ran, and the same as the history has.
func TestCollector(t *testing.T) {
	for _, c := range []struct {
		name     string
		protocol string
		args     []string
		timed    bool
	}{
		{"grpc", "grpc", nil, false},
		{"http", "http/protobuf", []string{"--otlp-timestamps"}, true},
		{"grpc zstd", "grpc", []string{"--otlp-compression", "zstd"}, false},
		{"http plain", "http/protobuf", []string{"--otlp-compression", "none"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			receiver := startCollector(t)
			endpoint := receiver.grpc
			if c.protocol != "grpc" {
				endpoint = receiver.http
			}
			split, syscalls := start(t, build(t, "split"), "60"), start(t, build(t, "syscalls"), "60")
			account := filepath.Join(t.TempDir(), "spans")
			spans := start(t, build(t, "spans"), account)
			a := startAgent(t, append([]string{
				"-p", fmt.Sprintf("%d,%d,%d", split.pid(), syscalls.pid(), spans.pid()), "--otlp-endpoint", "http://" + endpoint, "--otlp-protocol", c.protocol, "--otlp-metrics-interval", "2s",
			}, c.args...)...)
			before := userTime(t, spans.pid())
			time.Sleep(13 * time.Second)
			// On a busy machine it has had little of a CPU by then: what is compared are 300 samples at least.
			waitFor(t, "four seconds of the program with spans", func() bool { return userTime(t, spans.pid())-before >= 4*time.Second })
			if code, took := a.terminate(t); code != 0 || took > 5*time.Second {
				t.Errorf("the agent ended with %d after %s", code, took)
			}
			receiver.stop()
			spans.stop()

			messages := lines[otlpProfiles](t, receiver.file("profiles"))
			if len(messages) < 2 {
				t.Errorf("%d messages: of one interval and of the rest at least", len(messages))
			}
			of := profilesOf(t, messages)
			history := historyOf(t, a.dataDir)
			var total int64
			for pid, a := range of {
				total += a.samples
				if c.timed != (a.timed == a.samples) {
					t.Errorf("process %s: %d of %d samples have times", pid, a.timed, a.samples)
				}
			}
			if total != history || total == 0 {
				t.Errorf("%d samples arrived, the history has %d", total, history)
			}
			checkArrived(t, of[strconv.Itoa(split.pid())], split, map[string]float64{"burn_a": 0.5, "burn_b": 0.3, "burn_c": 0.2})
			if s := of[strconv.Itoa(syscalls.pid())]; s == nil || s.kinds["kernel"] == 0 || s.kinds["native"] == 0 {
				t.Errorf("of a program that is in the kernel half of the time: %+v", s)
			}
			if s := of[strconv.Itoa(spans.pid())]; s == nil || s.linked < s.samples/2 {
				t.Errorf("of a program that works for a span eight ninths of the time: %+v", s)
			} else if c.timed {
				checkSpans(t, s.spans, readSpans(t, account), nil, false)
			}
			checkMetrics(t, lines[otlpMetrics](t, receiver.file("metrics")))
		})
	}
}

// historyOf counts the samples of a stopped agent's history.
func historyOf(t *testing.T, dataDir string) int64 {
	t.Helper()
	r := run(t, "query", "--data-dir", dataDir, "--from", "-1h", "--format", "pprof")
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	p, err := profile.Parse(strings.NewReader(r.stdout))
	if err != nil {
		t.Fatal(err)
	}
	return count(p, every)
}

func checkArrived(t *testing.T, a *arrived, w *workload, shares map[string]float64) {
	t.Helper()
	if a == nil {
		t.Fatal("nothing arrived of the process")
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"service.name": "split", "process.pid": strconv.Itoa(w.pid()), "process.executable.name": "split", "process.executable.path": w.cmd.Path,
		"host.name": host, "os.type": "linux", "service.instance.id": fmt.Sprintf("%s:%d", host, w.pid()),
	}
	for key, value := range want {
		if a.resource[key] != value {
			t.Errorf("resource attribute %s is %q, want %q", key, a.resource[key], value)
		}
	}
	if a.threads["split"] != a.samples {
		t.Errorf("threads: %v of %d", a.threads, a.samples)
	}
	for name, share := range shares {
		checkShare(t, name+" innermost", float64(a.innermost[name])/float64(a.samples), share, a.samples)
	}
}

// checkMetrics looks at the last of each.
func checkMetrics(t *testing.T, messages []*otlpMetrics) {
	t.Helper()
	last := make(map[string]float64)
	units := make(map[string]string)
	for _, m := range messages {
		for _, r := range m.ResourceMetrics {
			if resource := (*otlpDictionary)(nil).attributes(r.Resource.Attributes); resource["service.name"] != "pilotlight" {
				t.Errorf("metrics of %v", resource)
			}
			for _, scope := range r.ScopeMetrics {
				for _, metric := range scope.Metrics {
					units[metric.Name] = metric.Unit
					points := metric.Sum
					if points == nil {
						points = metric.Gauge
					}
					last[metric.Name] = 0
					for _, p := range points.DataPoints {
						last[metric.Name] += float64(p.AsInt) + p.AsDouble
					}
				}
			}
		}
	}
	if last["pilotlight.samples.taken"] < 100 || last["pilotlight.agent.cpu"] <= 0 || units["pilotlight.agent.cpu"] != "s" {
		t.Errorf("%d metrics arrived: %v", len(last), slices.Sorted(maps.Keys(last)))
	}
}

// By service, two processes of one program are one resource, and each sample says of which of them it is.
func TestOTLPByService(t *testing.T) {
	r, err := receiver.Start("127.0.0.1:0", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	one, other := start(t, build(t, "split"), "60"), start(t, build(t, "split"), "60")
	a := startAgent(t, "-p", fmt.Sprintf("%d,%d", one.pid(), other.pid()), "--otlp-profiles-endpoint", "http://"+r.Address(), "--otlp-group", "service")
	time.Sleep(2 * time.Second)
	a.terminate(t)
	resources, pids := 0, make(map[int64]bool)
	for _, q := range r.Taken() {
		d := q.Profiles.Dictionary
		resources += len(q.Profiles.ResourceProfiles)
		received.EachSample(q.Profiles.ResourceProfiles, func(of *profilespb.ResourceProfiles, _ *profilespb.Profile, s *profilespb.Sample) {
			for _, attribute := range of.Resource.Attributes {
				if attribute.Key == "process.pid" || attribute.Key == "service.name" && attribute.Value.GetStringValue() != "split" {
					t.Errorf("a resource with %v", attribute)
				}
			}
			for _, i := range s.AttributeIndices {
				if attribute := d.AttributeTable[i]; d.StringTable[attribute.KeyStrindex] == "process.pid" {
					pids[attribute.Value.GetIntValue()] = true
				}
			}
		})
	}
	if want := map[int64]bool{int64(one.pid()): true, int64(other.pid()): true}; resources != len(r.Taken()) || resources == 0 || !maps.Equal(pids, want) {
		t.Errorf("%d resources in %d messages, of processes %v, not %v", resources, len(r.Taken()), pids, want)
	}
}

// Messages reach a receiver that only a proxy knows: over a tunnel where there is TLS, by gRPC too, and as requests to the proxy where there is none.
func TestOTLPThroughProxy(t *testing.T) {
	authority := httptest.NewTLSServer(nil) // has a certificate for example.com
	defer authority.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scheme, protocol, method string
		config                   *tls.Config
	}{
		{"http", "http/protobuf", http.MethodPost, nil},
		{"https", "http/protobuf", http.MethodConnect, &tls.Config{Certificates: authority.TLS.Certificates}},
		{"https", "grpc", http.MethodConnect, &tls.Config{Certificates: authority.TLS.Certificates}},
	} {
		t.Run(c.scheme+" "+c.protocol, func(t *testing.T) {
			r, err := receiver.Start("127.0.0.1:0", c.config, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var methods sync.Map
			proxy := httptest.NewServer(proxyTo(r.Address(), &methods))
			defer proxy.Close()
			_, port, err := net.SplitHostPort(r.Address())
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(pilotlight, "doctor", "otlp", "--otlp-endpoint", c.scheme+"://example.com:"+port, "--otlp-protocol", c.protocol, "--otlp-certificate", file)
			by := strings.Replace(proxy.URL, "http://", "http://user:password@", 1)
			cmd.Env = append(os.Environ(), "HTTP_PROXY="+by, "HTTPS_PROXY="+by)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			signals := make(map[string]bool)
			for _, q := range r.Taken() {
				signals[q.Signal] = true
			}
			if _, ok := methods.Load(c.method); !ok || len(signals) != 2 {
				t.Errorf("%v arrived; the proxy saw %v", signals, &methods)
			}
		})
	}
}

// proxyTo is a proxy that asks for its user's password, and takes all names for an address.
func proxyTo(address string, methods *sync.Map) http.Handler {
	plain := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Host = address }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNzd29yZA==" {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		methods.Store(r.Method, true)
		if r.Method != http.MethodConnect {
			plain.ServeHTTP(w, r)
			return
		}
		to, err := net.Dial("tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		w.WriteHeader(http.StatusOK)
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		go io.Copy(to, buffered)
		_, _ = io.Copy(from, to) // until one of both ends
	})
}
