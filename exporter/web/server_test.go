package web

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// The whole of a test must leave no goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for range 100 {
		if runtime.NumGoroutine() <= 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > 2 {
		stacks := make([]byte, 1<<16)
		fmt.Fprintf(os.Stderr, "%d goroutines are left:\n%s\n", n, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// profiler gives hand-made profiles. Like the real one it collects until the time is over, the
// context ends or it stops, and gives what it has.
type profiler struct {
	started time.Time
	done    chan struct{}
	open    atomic.Int64
	samples []profile.Sample
	err     error
	// targetsEnded is what Stats says of the target.
	targetsEnded bool
}

func newProfiler(samples ...profile.Sample) *profiler {
	return &profiler{started: time.Now(), done: make(chan struct{}), samples: samples}
}

func (p *profiler) Collect(ctx context.Context, f collect.Filter, d time.Duration) (*profile.Profile, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.open.Add(1)
	defer p.open.Add(-1)
	builder := profile.NewBuilder(profile.TypeCPU, int64(1e9)/97, time.Now())
	var account profile.Account
	for _, s := range p.samples {
		if len(f.PIDs) > 0 && !slices.Contains(f.PIDs, s.Labels.PID) || f.Comm != nil && !f.Comm.MatchString(s.Labels.Comm) {
			account.Filtered++
			continue
		}
		builder.Add(s.Kernel, s.User, s.Labels, s.Value)
		account.Exported++
	}
	account.Taken = account.Exported + account.Filtered
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-p.done:
	}
	return builder.Build(time.Now(), account), nil
}

func (p *profiler) Stats(context.Context) (collect.Stats, error) {
	return collect.Stats{BPF: bpf.Counters{Taken: 1234, LostRingFull: 3}, Exported: 1200, BadRecords: 2, TargetsEnded: p.targetsEnded}, p.err
}

func (p *profiler) Started() time.Time    { return p.started }
func (p *profiler) Done() <-chan struct{} { return p.done }

// stack makes a sample of functions, innermost first.
func stack(pid int, comm string, functions ...string) profile.Sample {
	mapping := &profile.Mapping{Path: "/usr/bin/" + comm, Limit: 0x1000, HasFunctions: true}
	user := &profile.Stack{}
	for i, name := range functions {
		user.Locations = append(user.Locations, &profile.Location{
			Kind: profile.FrameNative, Mapping: mapping, Address: uint64(16 * (i + 1)),
			Lines: []profile.Line{{Function: &profile.Function{Name: name}}},
		})
	}
	return profile.Sample{User: user, Labels: &profile.Labels{PID: pid, Comm: comm}, Count: 1, Value: int64(1e9) / 97}
}

func profileOf(samples ...profile.Sample) *profile.Profile {
	return &profile.Profile{Type: profile.TypeCPU, Duration: 10 * time.Second, Samples: samples}
}

// running is a server on a port of its own.
type running struct {
	*Server
	url   string
	end   context.CancelFunc
	ended chan error
}

// serve starts a server; it is stopped at the end of the test.
func serve(t testing.TB, o Options) *running {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Profiler == nil {
		o.Profiler = newProfiler()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, url: s.URL(listener), end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Serve(ctx, listener); close(r.ended) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

type answer struct {
	code   int
	header http.Header
	body   string
}

func send(t testing.TB, r *http.Request) answer {
	t.Helper()
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{a.StatusCode, a.Header, string(body)}
}

func request(t testing.TB, method, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *running) get(t testing.TB, path string) answer {
	t.Helper()
	return send(t, request(t, http.MethodGet, s.url+path))
}

func parsed(t testing.TB, a answer) *pb.Profile {
	t.Helper()
	if a.code != http.StatusOK {
		t.Fatalf("%d %s", a.code, a.body)
	}
	p, err := pb.ParseData([]byte(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 500 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within 5 s", what)
}

func TestProfile(t *testing.T) {
	self := os.Getpid()
	s := serve(t, Options{Profiler: newProfiler(stack(self, "mine", "leaf", "main"), stack(1, "init", "main"), stack(self, "other", "main"))})
	for query, want := range map[string]int{
		"":                                     3,
		fmt.Sprintf("&pid=%d", self):           2,
		"&comm=^init$":                         1,
		fmt.Sprintf("&pid=%d&comm=mine", self): 1,
	} {
		a := s.get(t, "/debug/pprof/profile?seconds=0.1"+query)
		if p := parsed(t, a); len(p.Sample) != want {
			t.Errorf("%s: %d samples, not %d", query, len(p.Sample), want)
		}
		if a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("X-Content-Type-Options") != "nosniff" ||
			a.header.Get("Content-Disposition") != `attachment; filename="profile.pb.gz"` {
			t.Errorf("%s: headers %v", query, a.header)
		}
	}
}

// HEAD says what GET would, and collects nothing.
func TestProfileHead(t *testing.T) {
	s := serve(t, Options{})
	for query, want := range map[string]int{"?seconds=600": http.StatusOK, "?seconds=x": http.StatusBadRequest} {
		if a := send(t, request(t, http.MethodHead, s.url+"/debug/pprof/profile"+query)); a.code != want {
			t.Errorf("%s: %d, not %d", query, a.code, want)
		}
	}
}

func TestProfileRefusals(t *testing.T) {
	s := serve(t, Options{})
	for query, want := range map[string]int{
		"seconds=601": http.StatusBadRequest, "pid=x": http.StatusBadRequest, "pid=4194304": http.StatusBadRequest,
		"cgroup=/no/such/cgroup": http.StatusBadRequest, "nonsense=1": http.StatusBadRequest,
		"from=yesterday": http.StatusBadRequest, "from=-15m&seconds=5": http.StatusBadRequest, "from=-15m": http.StatusNotFound,
		"filter=trace_id&seconds=1": http.StatusBadRequest, `filter=nonsense="1"&seconds=1`: http.StatusBadRequest,
	} {
		a := s.get(t, "/debug/pprof/profile?"+query)
		if a.code != want || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || a.header.Get("X-Go-Pprof") == "" {
			t.Errorf("%s: %d %v %q", query, a.code, a.header, a.body)
		}
		if name, _, _ := strings.Cut(query, "="); want == http.StatusBadRequest && !strings.Contains(a.body, name) {
			t.Errorf("%s: %q does not name the parameter", query, a.body)
		}
	}
}

// A profile that is collected now can be of one trace. Its other samples are counted, as those of other processes are.
func TestDownloadOfTrace(t *testing.T) {
	one, other, none := stack(1, "shop", "sort"), stack(1, "shop", "hash"), stack(1, "shop", "read")
	one.Labels.TraceID, one.Labels.SpanID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	other.Labels.TraceID, other.Labels.SpanID = "4bf92f3577b34da6a3ce929d0e0e4737", "00f067aa0ba902b7"
	s := serve(t, Options{Profiler: newProfiler(one, other, none)})
	p := parsed(t, s.get(t, "/debug/pprof/profile?seconds=0.1&filter="+url.QueryEscape(`trace_id="4bf92f3577b34da6a3ce929d0e0e4736"`)))
	if len(p.Sample) != 1 || p.Sample[0].Location[0].Line[0].Function.Name != "sort" || p.Sample[0].Label["span_id"][0] != "00f067aa0ba902b7" {
		t.Errorf("%v", p)
	}
	if !slices.Contains(p.Comments, "samples.taken=3") || !slices.Contains(p.Comments, "samples.exported=1") || !slices.Contains(p.Comments, "samples.filtered=2") {
		t.Errorf("%v", p.Comments)
	}
	if p := parsed(t, s.get(t, "/debug/pprof/profile?seconds=0.1&filter="+url.QueryEscape(`span_id=""`))); len(p.Sample) != 1 {
		t.Errorf("%v", p)
	}
}

// The real tool reads the URL, and shows the text of a refusal.
func TestGoToolPprof(t *testing.T) {
	s := serve(t, Options{Profiler: newProfiler(stack(1, "init", "burn_cpu", "main"))})
	tool := func(url string) (string, error) {
		cmd := exec.Command("go", "tool", "pprof", "-top", "-seconds", "1", url)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := tool(s.url + "/debug/pprof/profile"); err != nil || !strings.Contains(out, "burn_cpu") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := tool(s.url + "/debug/pprof/profile?comm=("); err == nil || !strings.Contains(out, "not a regular expression") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTooManyProfiles(t *testing.T) {
	profiler := newProfiler()
	s := serve(t, Options{Profiler: profiler})
	waitFor(t, "the first look", func() bool { return profiler.open.Load() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, maxDownloads)
	for range maxDownloads {
		r := request(t, http.MethodGet, s.url+"/debug/pprof/profile?seconds=60").WithContext(ctx)
		go func() {
			if a, err := http.DefaultClient.Do(r); err == nil {
				a.Body.Close()
			}
			ended <- struct{}{}
		}()
	}
	waitFor(t, "all slots taken", func() bool { return len(s.slots) == maxDownloads })
	if a := s.get(t, "/debug/pprof/profile?seconds=1"); a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.code, a.header, a.body)
	}
	cancel() // the clients go away: their collections end, and there is room again
	for range maxDownloads {
		<-ended
	}
	waitFor(t, "collections of clients that went away end", func() bool { return len(s.slots) == 0 })
	parsed(t, s.get(t, "/debug/pprof/profile?seconds=0.1"))
}

// When the server ends, a profile under way is answered with what it has.
func TestStopDuringProfile(t *testing.T) {
	profiler := newProfiler(stack(1, "init", "main"))
	s := serve(t, Options{Profiler: profiler})
	got := make(chan answer)
	go func() { got <- s.get(t, "/debug/pprof/profile?seconds=60") }()
	waitFor(t, "the collection", func() bool { return len(s.slots) == 1 })
	began := time.Now()
	s.end()
	if p := parsed(t, <-got); len(p.Sample) != 1 {
		t.Errorf("%d samples", len(p.Sample))
	}
	if err := <-s.ended; err != nil || time.Since(began) > grace {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if n := profiler.open.Load(); n != 0 {
		t.Errorf("%d collections are left", n)
	}
}

// A client that neither asks nor goes away, and one that sends half a request, do not hold the end up.
func TestStopWithIdleClients(t *testing.T) {
	s := serve(t, Options{})
	address := strings.TrimPrefix(s.url, "http://")
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: loc"} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	s.get(t, "/healthz") // the server has met the others by now
	began := time.Now()
	s.end()
	if err := <-s.ended; err != nil || time.Since(began) > 4*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestCollectFails(t *testing.T) {
	profiler := newProfiler()
	profiler.err = errors.New("the ring burst")
	s := serve(t, Options{Profiler: profiler})
	if a := s.get(t, "/debug/pprof/profile?seconds=1"); a.code != http.StatusInternalServerError || !strings.Contains(a.body, "the ring burst") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := s.get(t, "/"); a.code != http.StatusOK || !strings.Contains(a.body, "the ring burst") {
		t.Errorf("%d %s", a.code, a.body)
	}
	close(profiler.done)
	if a := s.get(t, "/debug/pprof/profile?seconds=1"); a.code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// A process that the agent does not sample is the client's mistake.
func TestCollectOutsideTarget(t *testing.T) {
	profiler := newProfiler()
	profiler.err = fmt.Errorf("process 12 is %w", collect.ErrNotOfTarget)
	s := serve(t, Options{Profiler: profiler, Target: "pid 34"})
	a := s.get(t, "/debug/pprof/profile?seconds=1")
	if a.code != http.StatusBadRequest || !strings.HasPrefix(a.body, "process 12 is not, or no longer, of the target, which is pid 34: ") {
		t.Errorf("%d %s", a.code, a.body)
	}
}

func TestHealth(t *testing.T) {
	profiler := newProfiler()
	profiler.started = time.Time{}
	s := serve(t, Options{Profiler: profiler})
	status := func(health, ready int) {
		t.Helper()
		if a := s.get(t, "/healthz"); a.code != health {
			t.Errorf("/healthz: %d %s", a.code, a.body)
		}
		if a := s.get(t, "/readyz"); a.code != ready {
			t.Errorf("/readyz: %d %s", a.code, a.body)
		}
	}
	status(http.StatusOK, http.StatusServiceUnavailable)
	close(profiler.done)
	status(http.StatusServiceUnavailable, http.StatusServiceUnavailable)
	status2 := serve(t, Options{})
	if a := status2.get(t, "/readyz"); a.code != http.StatusOK {
		t.Errorf("/readyz: %d %s", a.code, a.body)
	}
}

func TestHosts(t *testing.T) {
	s := serve(t, Options{Listen: "127.0.0.2:0", Hosts: []string{"agent.example"}})
	named := serve(t, Options{Listen: "localhost:0"})
	all := serve(t, Options{Listen: "0.0.0.0:0", Security: Security{InsecureListen: true}})
	all.url = strings.Replace(all.url, "[::]", "127.0.0.1", 1)
	all.url = strings.Replace(all.url, "0.0.0.0", "127.0.0.1", 1)
	for _, c := range []struct {
		server *running
		host   string
		want   int
	}{
		{s, "localhost", 200}, {s, "LocalHost.:99", 200}, {s, "127.0.0.1:7070", 200}, {s, "127.9.9.9", 200}, {s, "[::1]", 200},
		{s, "[::1]:7070", 200}, {s, "[::ffff:127.0.0.1]", 200}, {s, "127.0.0.2", 200}, {s, "agent.example:1", 200}, {s, "AGENT.example", 200},
		{s, "evil.example", 421}, {s, "evil.example:7070", 421}, {s, "localhost.evil.example", 421}, {s, "127.0.0.1.evil.example", 421},
		{s, "192.0.2.1", 421}, {s, "[::2]", 421}, {s, "127.0.0.1@evil.example", 421}, {s, "0.0.0.0", 421},
		{named, "localhost", 200}, {named, "evil.example", 421},
		{all, "127.0.0.1", 200}, {all, "192.0.2.1", 421}, {all, "evil.example", 421},
	} {
		for _, path := range []string{"/", "/healthz", "/debug/pprof/profile?seconds=0.1", "/none"} {
			r := request(t, http.MethodGet, c.server.url+path)
			r.Host = c.host
			want := c.want
			if path == "/none" && want == 200 {
				want = 404
			}
			if a := send(t, r); a.code != want {
				t.Errorf("%s with Host %s: %d, not %d", path, c.host, a.code, want)
			}
		}
	}
}

// An agent that listens on all addresses answers to the address that a request reached.
func TestHostIsAddressReached(t *testing.T) {
	g := &guard{hosts: map[string]bool{}}
	for host, want := range map[string]bool{"192.0.2.7:7070": true, "[::ffff:192.0.2.7]": true, "192.0.2.8": false, "": false, "[": false} {
		r := request(t, http.MethodGet, "http://x/")
		r.Host = host
		local := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 7070}
		if got := g.allowsHost(r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(local)))); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestHeadersAndMethods(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "pilotlight_x 1") })
	s := serve(t, Options{Metrics: metrics})
	paths := map[string]int{
		"/": 200, "/metrics": 200, "/healthz": 200, "/readyz": 200, "/debug/pprof/": 200, "/api/v1/status": 200,
		"/debug/pprof/profile?seconds=0.1": 200, "/debug/pprof/profile?seconds=x": 400,
		"/none": 404, "/static/none": 404, "/assets/none": 404, "/speedscope/": 200, "/speedscope/LICENSE": 200, "/speedscope/none": 404, "/static/../page/index.html": 404, "/assets/../index.html": 404,
		"/debug/pprof/heap": 404, "/api/v1/none": 404,
	}
	loaded := regexp.MustCompile(`(?:src|href)="(/(?:static|assets)/[^"]+)"`).FindAllStringSubmatch(send(t, request(t, http.MethodGet, s.url+"/")).body, -1)
	if len(loaded) < 3 {
		t.Errorf("the page loads %q: no icon, script and style", loaded)
	}
	for _, l := range loaded {
		paths[l[1]] = 200
	}
	for path, want := range paths {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := send(t, request(t, method, s.url+path))
			policy := a.header.Get("Content-Security-Policy")
			if a.code != want || !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") ||
				a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: %d %v", method, path, a.code, a.header)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "BREW"} {
			if a := send(t, request(t, method, s.url+path)); a.code != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d", method, path, a.code)
			}
		}
	}
	for _, c := range []struct {
		what, site, mode, dest, origin string
		want                           int
	}{
		{"an image of another site's page", "cross-site", "no-cors", "image", "", 403},
		{"a script on another port", "same-site", "cors", "empty", "http://localhost:1", 403},
		{"a script of a browser that says less", "", "", "", "http://evil.example", 403},
		{"a script of a file", "", "", "", "null", 403},
		{"a frame of another site's page", "cross-site", "navigate", "iframe", "", 403},
		{"a link on another site's page", "cross-site", "navigate", "document", "", 403},
		{"the page's own", "same-origin", "cors", "empty", s.url, 200},
		{"an address that was typed", "none", "navigate", "document", "", 200},
	} {
		r := request(t, http.MethodGet, s.url+"/debug/pprof/profile?seconds=0.1")
		for name, value := range map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Sec-Fetch-Dest": c.dest, "Origin": c.origin} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if a := send(t, r); a.code != c.want {
			t.Errorf("%s: %d, not %d", c.what, a.code, c.want)
		}
	}
	for path, want := range map[string]int{"/": 200, "/?from=-1h": 200, "/debug/pprof/": 200, "/speedscope/": 200, "/api/v1/top": 403, "/metrics": 403} {
		r := request(t, http.MethodGet, s.url+path)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		if a := send(t, r); a.code != want {
			t.Errorf("a link on another site's page to %s: %d, not %d", path, a.code, want)
		}
		r.Header.Set("Sec-Purpose", "prefetch;prerender")
		if a := send(t, r); a.code != 403 {
			t.Errorf("%s for another site's page, ahead of the reader: %d", path, a.code)
		}
	}
	body := request(t, http.MethodGet, s.url+"/")
	body.Body, body.ContentLength = io.NopCloser(strings.NewReader("x")), 1
	if a := send(t, body); a.code != http.StatusBadRequest {
		t.Errorf("a body: %d", a.code)
	}
}

func TestToken(t *testing.T) {
	const token = "0123456789abcdef-secret"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, Options{Security: Security{TokenFile: file}})
	with := func(path, authorization string) answer {
		r := request(t, http.MethodGet, s.url+path)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		return send(t, r)
	}
	for authorization, want := range map[string]int{
		"": 401, "Bearer": 401, "Bearer ": 401, "Bearer wrong": 401, token: 401, "Basic !": 401, "Bearer " + token + "x": 401,
		"Bearer " + token: 200, "bearer " + token: 200,
	} {
		want := want
		for _, path := range []string{"/", "/debug/pprof/profile?seconds=0.1", "/api/v1/status", "/api/v1/session"} {
			if path == "/api/v1/session" && want == 200 {
				want = 204
			}
			if a := with(path, authorization); a.code != want || want == 401 && len(a.header["Www-Authenticate"]) == 0 {
				t.Errorf("%s with %q: %d, not %d", path, authorization, a.code, want)
			}
		}
		if a := with("/healthz", authorization); a.code != http.StatusOK {
			t.Errorf("a probe with %q: %d", authorization, a.code)
		}
	}
	r := request(t, http.MethodGet, s.url+"/")
	r.SetBasicAuth("pilotlight", token)
	if a := send(t, r); a.code != http.StatusOK {
		t.Errorf("the token as password: %d", a.code)
	}

	// A browser is sent a page that asks for the token, gives it once, and carries a cookie from then on.
	r = request(t, http.MethodGet, s.url+"/")
	r.Header.Set("Accept", "text/html,*/*")
	if a := send(t, r); a.code != http.StatusUnauthorized || !strings.Contains(a.body, "/static/login.js") || !strings.Contains(a.body, `<form id="login" method="post"`) {
		t.Errorf("%d %s: without its script the form must not put the token into the address", a.code, a.body)
	}
	for _, path := range []string{"/static/login.js", "/static/login.css", "/static/flame.svg"} {
		if a := with(path, ""); a.code != http.StatusOK {
			t.Errorf("%s: %d", path, a.code)
		}
	}
	set := with("/api/v1/session", "Bearer "+token).header.Get("Set-Cookie")
	for _, attribute := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(set, attribute) || strings.Contains(set, token) {
			t.Errorf("%q has no %s, or has the token", set, attribute)
		}
	}
	cookie, err := http.ParseSetCookie(set)
	if err != nil {
		t.Fatal(err)
	}
	carrying := func(name, value string) int {
		r := request(t, http.MethodGet, s.url+"/api/v1/status")
		r.AddCookie(&http.Cookie{Name: name, Value: value})
		return send(t, r).code
	}
	if code := carrying(cookie.Name, cookie.Value); code != http.StatusOK {
		t.Errorf("with the cookie: %d", code)
	}
	end, signature, _ := strings.Cut(cookie.Value, ".")
	for _, forged := range []string{"", ".", end, end + ".", "9" + cookie.Value, s.guard.newSession(time.Now().Add(-time.Second)), strings.Repeat("9", 30) + "." + signature} {
		if code := carrying(cookie.Name, forged); code != http.StatusUnauthorized {
			t.Errorf("with %q: %d", forged, code)
		}
	}
	if code := carrying("pilotlight-1", cookie.Value); code != http.StatusUnauthorized {
		t.Errorf("with the cookie of another port: %d", code)
	}
	// By the ends of two tunnels a browser reaches two agents, which listen on one port each on its own host.
	for host, name := range map[string]string{"localhost:7071": "pilotlight-7071", "localhost:7072": "pilotlight-7072", "localhost": "pilotlight-"} {
		r := request(t, http.MethodGet, s.url+"/api/v1/session")
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+token)
		if c, err := http.ParseSetCookie(send(t, r).header.Get("Set-Cookie")); err != nil || c.Name != name {
			t.Errorf("%s: %v %v", host, err, c)
		}
	}

	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "-none"} {
		if _, err := New(Options{Profiler: newProfiler(), Listen: "127.0.0.1:0", Security: Security{TokenFile: path}}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	security := Security{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for path, block := range map[string]*pem.Block{security.CertFile: {Type: "CERTIFICATE", Bytes: certificate}, security.KeyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, Options{Profiler: newProfiler(stack(1, "init", "main")), Security: security})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	a, err := (&http.Client{Transport: transport}).Get(s.url + "/debug/pprof/profile?seconds=0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.ProtoMajor != 2 {
		t.Errorf("%v, %s", err, a.Proto)
	}
	parsed(t, answer{a.StatusCode, a.Header, string(body)})

	security.KeyFile = filepath.Join(dir, "none.pem")
	if _, err := New(Options{Profiler: newProfiler(), Listen: "127.0.0.1:0", Security: security}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestCheckListen(t *testing.T) {
	for _, c := range []struct {
		listen   string
		security Security
		want     string // part of the error, "": none
	}{
		{"127.0.0.1:7070", Security{}, ""},
		{"127.1.2.3:7070", Security{}, ""},
		{"localhost:0", Security{}, ""},
		{"[::1]:7070", Security{}, ""},
		{"0.0.0.0:7070", Security{}, "--insecure-listen"},
		{":7070", Security{}, "--token-file"},
		{"[::]:7070", Security{}, "--tls-cert"},
		{"192.0.2.1:7070", Security{}, "can be reached from other machines"},
		{"agent.example:7070", Security{}, "can be reached from other machines"},
		{"0.0.0.0:7070", Security{InsecureListen: true}, ""},
		{"0.0.0.0:7070", Security{TokenFile: "t"}, ""},
		{"0.0.0.0:7070", Security{CertFile: "c", KeyFile: "k"}, ""},
		{"127.0.0.1:7070", Security{CertFile: "c"}, "both"},
		{"0.0.0.0:7070", Security{KeyFile: "k"}, "both"},
		{"7070", Security{}, "HOST:PORT"},
		{"", Security{}, "HOST:PORT"},
		{"127.0.0.1:", Security{}, "HOST:PORT"},
	} {
		err := CheckListen(c.listen, c.security)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q %+v: %v, not %q", c.listen, c.security, err, c.want)
		}
	}
}

func TestPage(t *testing.T) {
	profiler := newProfiler(stack(1, "init", "first_look"))
	s := serve(t, Options{Profiler: profiler, Version: "v1.2.3", Hostname: "box", Target: "the <whole> host", Event: "cpu", FrequencyHz: 97})
	waitFor(t, "the page shows the first look", func() bool { return strings.Contains(s.get(t, "/").body, "first_look") })

	var samples []profile.Sample
	for i := range 12 {
		for range 12 - i {
			samples = append(samples, stack(1, "app", fmt.Sprintf("hot_%02d", i), "main"))
		}
	}
	samples = append(samples, slices.Repeat([]profile.Sample{stack(1, "app", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "main")}, 20)...)
	samples = append(samples, slices.Repeat([]profile.Sample{stack(1, "app", "<script>alert(1)\u202e</script>", "main")}, 19)...)
	s.Export(profileOf(samples...))
	a := s.get(t, "/")
	for _, want := range []string{
		"v1.2.3", "box", "the &lt;whole&gt; host", "97 Hz", "1234 taken, 1200 exported, 5 lost", "geo::area&lt;geo::Circle, 7&gt;",
		"&lt;script&gt;alert(1)?&lt;/script&gt;", "hot_00", "hot_07", ">app<", "/debug/pprof/", "/metrics", "/healthz", "/readyz",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in\n%s", want, a.body)
		}
	}
	for _, unwanted := range []string{"<script>alert", "first_look", "hot_08", " style=", "http://", "https://"} {
		if strings.Contains(a.body, unwanted) {
			t.Errorf("%s in\n%s", unwanted, a.body)
		}
	}
	var now status
	if err := json.Unmarshal([]byte(s.get(t, "/api/v1/status").body), &now); err != nil || !now.Sampling || len(now.Top.Functions) != topCount {
		t.Fatalf("%v, %+v", err, now)
	}
	if f := now.Top.Functions[0]; f.Function != "geo::area<geo::Circle, 7>" || f.File != "app" || f.Self != 20 || f.Total != 20 {
		t.Errorf("%+v", f)
	}
	if a := s.get(t, "/debug/pprof/"); a.code != http.StatusOK || !strings.Contains(a.body, "seconds") || !strings.Contains(a.body, "container") {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// A page of zeros says why nothing comes.
func TestPageTargetsEnded(t *testing.T) {
	profiler := newProfiler()
	profiler.targetsEnded = true
	s := serve(t, Options{Profiler: profiler})
	if a := s.get(t, "/"); !strings.Contains(a.body, `class="off" role="status">no target process is left<`) || strings.Contains(a.body, "fills in by itself") {
		t.Error(a.body)
	}
	if a := s.get(t, "/api/v1/status"); !strings.Contains(a.body, `"sampling":false,"state":"no target process is left"`) {
		t.Error(a.body)
	}
	if a := s.get(t, "/readyz"); a.code != http.StatusOK { // what was sampled can be asked for
		t.Errorf("%d %s", a.code, a.body)
	}
	close(profiler.done)
	if a := s.get(t, "/"); !strings.Contains(a.body, ">sampling has ended<") {
		t.Error(a.body)
	}
}

// Functions without samples are a list without entries, not null.
func TestTopBeforeAnything(t *testing.T) {
	s := serve(t, Options{})
	if a := s.get(t, "/api/v1/status"); !strings.Contains(a.body, `"functions":[]`) {
		t.Errorf("%d %s", a.code, a.body)
	}
}

func TestSummarize(t *testing.T) {
	recursive := stack(1, "app", "f", "g", "f", "main")
	recursive.Count = 3
	inlined := stack(1, "app", "outer")
	inlined.User.Locations[0].Lines = []profile.Line{{Function: &profile.Function{Name: "inner"}}, {Function: &profile.Function{Name: "outer"}}}
	system := stack(1, "app", "main")
	system.Kernel = stack(1, "k", "do_syscall").User
	lost := profile.Sample{User: &profile.Stack{Truncated: "stack_evicted"}, Labels: &profile.Labels{}, Count: 1}
	clone := stack(1, "app", "_ZN3foo3barEv.llvm.1", "_ZN3foo3barEv.llvm.2")
	got := summarize([]*profile.Profile{profileOf(recursive, inlined), profileOf(system, lost, clone)})
	if got.Samples != 7 || got.Seconds != 20 {
		t.Errorf("%d samples of %v s", got.Samples, got.Seconds)
	}
	want := map[string][2]int64{
		"f": {3, 3}, "g": {0, 3}, "main": {0, 4}, "inner": {1, 1}, "outer": {0, 1}, "do_syscall": {1, 1}, "[truncated: stack evicted]": {1, 1}, "foo::bar": {1, 1},
	}
	for _, f := range got.Functions {
		if w, ok := want[f.Function]; !ok || w != [2]int64{f.Self, f.Total} {
			t.Errorf("%+v, not %v", f, w)
		}
	}
	if len(got.Functions) != len(want) {
		t.Errorf("%+v", got.Functions)
	}
}

// The last intervals are kept, within a bound by number and by size.
func TestRecentProfilesAreBounded(t *testing.T) {
	var r recentProfiles
	for i := range 3 * keepProfiles {
		r.add(profileOf(stack(i, "a", "f")))
		if len(r.profiles) != min(i+1, keepProfiles) || r.profiles[len(r.profiles)-1].Samples[0].Labels.PID != i {
			t.Fatalf("after %d: %d profiles", i+1, len(r.profiles))
		}
	}
	large := profileOf(make([]profile.Sample, keepSamples/2)...)
	r.add(large)
	r.add(large)
	if len(r.profiles) != 2 {
		t.Errorf("%d profiles after two large ones", len(r.profiles))
	}
	larger := profileOf(make([]profile.Sample, 2*keepSamples)...)
	r.add(larger)
	if len(r.profiles) != 1 || r.profiles[0] != larger {
		t.Errorf("%d profiles after one beyond the bound", len(r.profiles))
	}
}

// Profiles come in while the page is looked at.
func TestConcurrentUse(t *testing.T) {
	s := serve(t, Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			s.Export(profileOf(stack(1, "app", fmt.Sprintf("f%d", i))))
		}
	}()
	for range 20 {
		s.get(t, "/")
	}
	<-done
	if a := s.get(t, "/api/v1/status"); !strings.Contains(a.body, `"f49"`) || strings.Contains(a.body, `"f1"`) {
		t.Error(a.body)
	}
}

// 60,000 samples with 30 frames each: a minute of a host with 100 busy CPUs, where every stack is another one.
func BenchmarkSummarize(b *testing.B) {
	functions := make([]string, 2000)
	for i := range functions {
		functions[i] = fmt.Sprintf("_ZN3geo8function%04dE", i)
	}
	var samples []profile.Sample
	for i := range 6000 {
		frames := make([]string, 30)
		for j := range frames {
			frames[j] = functions[(i*31+j*j*7)%len(functions)]
		}
		samples = append(samples, stack(1, "app", frames...))
	}
	p := profileOf(slices.Repeat(samples, 10)...)
	for b.Loop() {
		summarize([]*profile.Profile{p})
	}
}

// Files with a hash in their name are kept for good, others are asked for again, and what shows data is not kept at all.
func TestAssetsAreCachedAndZipped(t *testing.T) {
	s := serve(t, Options{})
	page := s.get(t, "/")
	if page.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page: %v", page.header)
	}
	script := regexp.MustCompile(`/assets/[^"]+\.js`).FindString(page.body)
	for path, cache := range map[string]string{script: cacheForever, "/static/login.js": cacheAsked} {
		r := request(t, http.MethodGet, s.url+path)
		r.Header.Set("Accept-Encoding", "br, gzip") // so that the client does not unzip by itself
		a := send(t, r)
		unzipped, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil || a.header.Get("Content-Encoding") != "gzip" || a.header.Get("Cache-Control") != cache || !strings.HasPrefix(a.header.Get("Content-Type"), "text/javascript") {
			t.Fatalf("%s: %v %v", path, err, a.header)
		}
		text, err := io.ReadAll(unzipped)
		if plain := s.get(t, path); err != nil || plain.body != string(text) {
			t.Errorf("%s: %v: zipped is not plain", path, err)
		}
		r.Header.Set("If-None-Match", a.header.Get("ETag"))
		if a := send(t, r); a.code != http.StatusNotModified || a.body != "" {
			t.Errorf("%s again: %d", path, a.code)
		}
	}
}

// The browser asks at once for what the script would ask for: of files, or of a page of more than a time, it is told nothing.
func TestPageTellsItsFirstQuery(t *testing.T) {
	s := serve(t, Options{})
	for page, query := range map[string]string{
		"/": "live=true", "/?range=15m": "from=-900s", "/?range=1h": "from=-3600s", "/?range=24h": "from=-86400s",
		"/?range=7d": "", "/?range=24h&view=top": "", "/?range=24h&range=1h": "from=-86400s", "/?filter=x": "",
	} {
		want := ""
		if query != "" {
			want = "</api/v1/tree?" + query + "&limit=5000>; rel=preload; as=fetch; crossorigin"
		}
		if got := s.get(t, page).header.Get("Link"); got != want {
			t.Errorf("%s: %q, want %q", page, got, want)
		}
	}
}

func TestRisk(t *testing.T) {
	for _, c := range []struct {
		listen   string
		security Security
		want     string
	}{
		{"127.0.0.1:1", Security{}, ""},
		{"0.0.0.0:1", Security{TokenFile: "t", CertFile: "c", KeyFile: "k"}, ""},
		{"0.0.0.0:1", Security{CertFile: "c", KeyFile: "k"}, "everyone"},
		{"0.0.0.0:1", Security{InsecureListen: true}, "everyone"},
		{"0.0.0.0:1", Security{TokenFile: "t"}, "clear text"},
	} {
		if got := Risk(c.listen, c.security); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %+v: %q", c.listen, c.security, got)
		}
	}
}
