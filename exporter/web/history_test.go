package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// withHistory serves a history of one interval, which began a minute ago.
func withHistory(t *testing.T, samples ...profile.Sample) *running {
	t.Helper()
	return serve(t, Options{History: historyOf(t, samples...)})
}

func historyOf(t *testing.T, samples ...profile.Sample) *store.Reader {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := profileOf(samples...)
	p.Start, p.Period = time.Now().Add(-time.Minute), int64(1e9)/97
	s.Export(p)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return store.NewReader(dir, nil)
}

// Answers of the history are made in a hurry, which ends with them; those of what is in memory are not.
func TestHurry(t *testing.T) {
	var began, ended atomic.Int32
	s := serve(t, Options{History: historyOf(t, stack(1, "x", "f")), Hurry: func() func() {
		began.Add(1)
		return func() { ended.Add(1) }
	}})
	for i, path := range []string{"/api/v1/top", "/api/v1/profile", "/debug/pprof/profile?from=-5m", "/api/v1/top?filter=comm=~%22(%22"} {
		s.get(t, path)
		want := int32(min(i+1, 3)) // the last one is refused
		if b, e := began.Load(), ended.Load(); b != want || e != want {
			t.Errorf("%s: %d begun, %d ended, want %d", path, b, e, want)
		}
	}
	if s.get(t, "/api/v1/top?live=true"); began.Load() != 3 {
		t.Errorf("what is in memory is answered in a hurry")
	}
}

// Every endpoint understands the same names, and counts the same samples.
func TestHistory(t *testing.T) {
	hostile := "evil\"',\x01<script>"
	s := withHistory(t, stack(1, "redis", "read", "main"), stack(1, "redis", "read", "main"), stack(2, hostile, "write", "main"), stack(12, "nginx", "poll"))
	for filter, want := range map[string]int64{
		"":                          4,
		"from=-5m&to=now":           4,
		"from=-5m&to=-3m":           0,
		"pid=1":                     2,
		"pid=1&children=false":      2,
		"pid=1,12":                  3,
		"comm=^redis$":              2,
		"comm=^red$":                0,
		"comm=edi":                  2,
		"filter=comm%3D~%22re.*%22": 2,
		"filter=pid!%3D1&comm=n":    1,
		"filter=" + url.QueryEscape(`comm="evil\"',\x01<script>"`): 1,
		"type=cycles":  0,
		"focus=^read$": 2,
		"ignore=main":  1,
	} {
		a := s.get(t, "/api/v1/top?"+filter)
		var top struct {
			Total    struct{ Samples int64 }
			Warnings []string
		}
		if err := json.Unmarshal([]byte(a.body), &top); err != nil || a.code != http.StatusOK || top.Total.Samples != want || len(top.Warnings) > 0 {
			t.Errorf("top?%s: %d, %v, %d samples, not %d: %.200s", filter, a.code, err, top.Total.Samples, want, a.body)
		}
		if !strings.Contains(filter, "from") {
			filter += "&from=-5m" // else it would be collected now
		}
		a = s.get(t, "/debug/pprof/profile?"+filter)
		p, err := pb.Parse(bytes.NewReader([]byte(a.body)))
		if err != nil {
			t.Errorf("profile?%s: %d %v", filter, a.code, err)
			continue
		}
		var sum int64
		for _, sample := range p.Sample {
			sum += sample.Value[0]
		}
		if sum != want {
			t.Errorf("profile?%s: %d samples, not %d", filter, sum, want)
		}
	}
	for path, want := range map[string]string{
		"tree?limit=1":                      `"name":"main"`,
		"tree?by=comm":                      `"name":"redis"`,
		"callers?function=read":             `"callers":[{"name":"main"`,
		"labels?by=pid":                     `"count":3,"values":[{"label":"1","weight":{"samples":2,`,
		"series?by=comm&step=1m":            `"label":"redis"`,
		"heatmap?step=10ms&from=-2m":        `"step":0.01`,
		"diff?from=-5m&before_from=-2h":     `"functions":[`,
		"difftree?from=-5m&before_from=-2h": `"selfBefore":{"samples":0,`,
		"profile?format=folded":             "main;read 2\n",
		"profile?format=html":               "Hottest functions",
		"profile?format=speedscope":         `{"name":"read"}`,
		"processes?comm=redis":              `"count":1,"processes":[{"pid":1,"comm":"redis",`,
		"tree?live=true":                    `"samples":0`,
		"reasons":                           `"reason":"ring_full","title":"ring full","loses":"sample"`,
		"openapi.yaml":                      "openapi: 3",
	} {
		if a := s.get(t, "/api/v1/"+path); a.code != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d: %.300s has no %s", path, a.code, a.body, want)
		}
	}
	for path, want := range map[string]string{
		"top?form=-1m":               `no parameter "form" here: accepted are from`,
		"top?from=x":                 `from: "x" is no time`,
		"top?from=now&to=-5m":        "is not before to",
		"top?limit=0":                "limit=",
		"top?children=true":          "children is not known of the past",
		"top?children=perhaps":       "neither true nor false",
		"top?filter=comm%3E1":        "at 5: expected =, !=, =~ or !~",
		"top?pid=x":                  "not a process id",
		"top?filter=trace_id%3Da":    "trace_id: the history does not keep which span",
		"tree?by=span_id":            "the history does not keep which span",
		"top?from=1&from=2":          "given 2 times",
		"labels":                     "by is missing",
		"tree?live=perhaps":          "live=",
		"profile?format=xml":         "give folded, ",
		"diff?live=true":             `no parameter "live" here`,
		"callers":                    "function is missing",
		"series?step=1ms":            "want a multiple of a second",
		"heatmap?from=-1d&step=10ms": "too many steps",
		"diff?scale=x":               "give share or time",
	} {
		if a := s.get(t, "/api/v1/"+path); a.code != http.StatusBadRequest || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d: %.300s, not %s", path, a.code, a.body, want)
		}
	}
}

// slowHistory takes until its context ends.
type slowHistory struct{}

func wait(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("read: %w", ctx.Err())
}

func (slowHistory) Read(ctx context.Context, _ query.Query, _ ...string) (*profile.Profile, *store.Answer, error) {
	return nil, nil, wait(ctx)
}

func (slowHistory) Stacks(ctx context.Context, _ query.Query) (*store.Stacks, *store.Answer, error) {
	return nil, nil, wait(ctx)
}

func (slowHistory) Series(ctx context.Context, _ query.Query, _ time.Duration) (*store.Series, *store.Answer, error) {
	return nil, nil, wait(ctx)
}

func (slowHistory) Heatmap(ctx context.Context, _ query.Query, _ time.Duration) (*store.Series, *store.Answer, error) {
	return nil, nil, wait(ctx)
}

func (slowHistory) Groups(ctx context.Context, _ query.Query, _ ...string) ([]store.Group, *store.Answer, error) {
	return nil, nil, wait(ctx)
}

// No more than two queries run at once, and the others are told to come again. A stopping server ends them.
func TestQueriesAreBounded(t *testing.T) {
	s := serve(t, Options{History: slowHistory{}})
	codes := make(chan answer, maxQueries+1)
	for range maxQueries + 1 {
		go func() { codes <- s.get(t, "/api/v1/top") }()
	}
	if a := <-codes; a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("%d: %s", a.code, a.body)
	}
	s.end()
	for range maxQueries {
		if a := <-codes; a.code != http.StatusServiceUnavailable {
			t.Errorf("%d: %s", a.code, a.body)
		}
	}
}

// A query that takes too long is ended, and the answer says so.
func TestQueriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Listen: "127.0.0.1:0", Profiler: newProfiler(), History: slowHistory{}})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/api/v1/tree", "/api/v1/top", "/api/v1/callers?function=f", "/api/v1/series", "/api/v1/heatmap", "/api/v1/labels?by=comm", "/api/v1/processes", "/api/v1/diff",
			"/api/v1/difftree", "/api/v1/profile?from=-1h", "/debug/pprof/profile?from=-1h"} {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
			begun := time.Now()
			s.routes().ServeHTTP(w, r)
			if took := time.Since(begun); took != queryTimeout || w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "longer than 20s") {
				t.Errorf("%s: %d after %s: %s", path, w.Code, took, w.Body)
			}
		}
	})
}

// Nodes that weigh as much as the lightest one that is kept do not take the place of heavier ones that come after them.
func TestPruneKeepsTheHeaviest(t *testing.T) {
	var samples []profile.Sample
	for i := range 60 {
		samples = append(samples, stack(1, "x", fmt.Sprint("leaf", i), "wide"))
	}
	for range 40 {
		samples = append(samples, stack(1, "x", "narrow"))
	}
	tree := flame.NewTree(profileOf(samples...))
	if kept := prune(tree, 10); kept != 10 {
		t.Errorf("%d nodes are kept", kept)
	}
	if len(tree.Root.Children) != 2 || tree.Root.Children[1].Name != "narrow" || len(tree.Root.Children[0].Children) != 8 {
		t.Errorf("%+v", tree.Root.Children)
	}
}

// However long the names are that a process gives its functions, an answer has a bound: what is lighter is left out.
func TestNamesAreBounded(t *testing.T) {
	samples := []profile.Sample{stack(1, "x", "caller"), stack(1, "x", "caller")}
	for i := range 40 {
		samples = append(samples, stack(1, "x", fmt.Sprint(i, strings.Repeat("x", 1<<20)), "caller"))
	}
	places := slices.Repeat([]flame.Place{{Lines: make([]flame.LineWeight, maxNameBytes/100)}}, 10)
	if n := len(first(places, 10, placeBytes)); n != 3 {
		t.Errorf("%d places of many lines each", n)
	}
	s := withHistory(t, samples...)
	for _, path := range []string{"tree?", "top?limit=100000", "callers?function=caller", "diff?before_from=-1h&before_to=-50m"} {
		a := s.get(t, "/api/v1/"+path)
		if a.code != http.StatusOK || len(a.body) > maxNameBytes+1<<20 || len(a.body) < maxNameBytes/2 || !strings.Contains(a.body, `"name":"caller"`) {
			t.Errorf("%s: %d, %d bytes: %.200s", path, a.code, len(a.body), a.body)
		}
	}
	// Answers that nobody takes are still some that are being given.
	for range maxQueries {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /api/v1/top?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if a := s.get(t, "/api/v1/top"); a.code != http.StatusTooManyRequests {
		t.Errorf("with %d answers that nobody takes: %d", maxQueries, a.code)
	}
}

// damagedHistory lacks a file.
type damagedHistory struct{ History }

func (damagedHistory) Read(context.Context, query.Query, ...string) (*profile.Profile, *store.Answer, error) {
	return profileOf(), &store.Answer{Warnings: []error{errors.New("evil\x1b[31m\xff is damaged at offset 7")}}, nil
}

// A download says what it lacks, also to who has the file alone.
func TestDownloadSaysWhatItLacks(t *testing.T) {
	s := serve(t, Options{History: damagedHistory{}})
	if a := s.get(t, "/api/v1/profile?format=html"); !strings.Contains(a.body, "<p>left out: evil?[31m\uFFFD is damaged at offset 7</p>") {
		t.Errorf("%.2000s", a.body)
	}
	a := s.get(t, "/api/v1/profile")
	p, err := pb.Parse(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if want := "left out: evil?[31m\uFFFD is damaged at offset 7"; !slices.Contains(p.Comments, want) || a.header.Get("X-Pilotlight-Warnings") != "1" {
		t.Errorf("%q, %v", p.Comments, a.header)
	}
}

// Text that has each name in full is sent as it is made: it can be any number of times as long as the profile.
func TestFoldedIsStreamed(t *testing.T) {
	caller := stack(1, "app", strings.Repeat("x", 32<<10)).User.Locations
	var samples []profile.Sample
	for i := range 8 {
		sample := stack(1, "app", fmt.Sprint("leaf", i))
		sample.User.Locations = append(sample.User.Locations, slices.Repeat(caller, 500)...)
		samples = append(samples, sample)
	}
	p := profileOf(samples...)
	p.Start = time.Now().Add(-time.Minute)
	s := serve(t, Options{History: memory{p}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a, err := http.Get(s.url + "/api/v1/profile?format=folded")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	n, err := io.Copy(io.Discard, a.Body)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err != nil || n < 125<<20 || took > 32<<20 {
		t.Errorf("%d bytes: %v; they took %d bytes of memory", n, err, took)
	}
}

// What is asked of stacks makes them neither more nor less complete.
func TestHTMLSaysHowCompleteTheStacksWere(t *testing.T) {
	unnamed := stack(1, "app", "leaf", "")
	unnamed.User.Locations[1].Unnamed, unnamed.User.Truncated = "no_symbols", "unmapped_pc"
	s := withHistory(t, unnamed, stack(1, "app", "read", "main"))
	for query, samples := range map[string]string{"": "2 samples", "&by=comm": "2 samples", "&hide=main": "2 samples", "&focus=leaf": "1 samples"} {
		a := s.get(t, "/api/v1/profile?format=html"+query)
		for _, want := range []string{samples, "50.0 % whole stacks", "75.0 % named frames"} {
			if !strings.Contains(a.body, want) {
				t.Errorf("%q: no %s in %.2000s", query, want, a.body[strings.Index(a.body, "<header>"):])
			}
		}
	}
}

// Every reason that there is says what it means, and what to do.
func TestReasonsAreExplained(t *testing.T) {
	if len(reasons) != bpf.ReasonCount-1 {
		t.Errorf("%d reasons are told", len(reasons))
	}
	for _, r := range reasons {
		if r.Loses == "" || r.Meaning == "" || r.Remedy == "" {
			t.Errorf("%+v", r)
		}
	}
}
