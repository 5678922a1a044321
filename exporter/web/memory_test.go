package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// What is in memory answers as the history does that holds the same.
func TestMemoryAnswersAsTheHistoryDoes(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	remembering := serve(t, Options{})
	begin := time.Now().Add(-50 * time.Second).Truncate(10 * time.Millisecond)
	var profiles memory
	for i := range 3 {
		var samples []profile.Sample
		for pid := range 25 { // more than a series has lines
			sample := stack(pid+1, "app", "leaf", "main")
			sample.Times = []time.Duration{time.Duration(100*pid+3000*i) * time.Millisecond}
			samples = append(samples, sample)
		}
		second := stack(3, "other", "read")
		second.Count, second.Value, second.Times = 2, 7, []time.Duration{time.Second, 9 * time.Second}
		p := profileOf(append(samples, second)...)
		p.Start, p.Period = begin.Add(time.Duration(i)*10*time.Second), int64(1e9)/97
		p.Account = profile.Account{Taken: 28, Exported: 27, Lost: []profile.Loss{{Reason: "ring_full", Count: 1}}}
		profiles = append(profiles, p)
		s.Export(p)
		remembering.Export(p)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stored := serve(t, Options{History: store.NewReader(dir, nil)})
	given := serve(t, Options{History: profiles})
	for _, path := range []string{
		"tree?", "tree?by=comm&focus=main", "top?filter=pid%3D3", "callers?function=leaf", "labels?by=comm", "labels?by=pid&ignore=read", "processes?", "processes?comm=other",
		"series?by=pid&step=1s", "series?step=10s", "series?by=comm&focus=read", "heatmap?step=50ms&by=comm", "top?type=cycles",
		"diff?before_from=-2m", "difftree?",
	} {
		get := func(s *running, query string) (answer map[string]any) {
			a := s.get(t, "/api/v1/"+path+query)
			if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.code != http.StatusOK {
				t.Fatalf("%s: %d %v %s", path, a.code, err, a.body)
			}
			delete(answer, "query")
			delete(answer, "before_query")
			return answer
		}
		text := func(answer map[string]any) string {
			out, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		during := func(from, to time.Duration) string {
			return "&from=" + begin.Add(from).Format(time.RFC3339Nano) + "&to=" + begin.Add(to).Format(time.RFC3339Nano)
		}
		from := during(0, 40*time.Second)
		for _, times := range []string{
			from, during(3005*time.Millisecond, 21300*time.Millisecond), during(1005*time.Millisecond, 1205*time.Millisecond),
			during(4*time.Second, 8*time.Second), // nothing was sampled in it
		} {
			want := text(get(stored, times))
			if got := text(get(given, times)); got != want {
				t.Errorf("%s%s of files:\n%s\nof the history:\n%s", path, times, got, want)
			}
		}
		if path[:4] == "diff" {
			continue // nothing before is live
		}
		if got, want := get(remembering, "&live=true")["total"], get(stored, from)["total"]; text(map[string]any{"": got}) != text(map[string]any{"": want}) {
			t.Errorf("%s: live %v, in the history %v", path, got, want)
		}
	}
}

// The clock may be set back while profiles are in memory: those from what is now the future are shown, with their losses summed.
func TestMemoryAfterTheClockWasSetBack(t *testing.T) {
	s := serve(t, Options{})
	for i := range 2 {
		p := profileOf(stack(1, "app", "leaf", "main"))
		p.Start = time.Now().Add(time.Hour + time.Duration(i)*10*time.Second)
		p.Account.Lost = []profile.Loss{{Reason: "ring_full", Count: 3}}
		s.Export(p)
	}
	for path, want := range map[string]string{
		"top?": `"total":{"samples":2,`, "tree?": `"lost":{"ring_full":6}`, "series?": `"label":""`, "heatmap?": `"label":""`, "processes?": `"count":1`,
		"profile?format=html": "lost: 6 ring full",
	} {
		if a := s.get(t, "/api/v1/"+path+"&live=true"); a.code != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d: %.300s has no %s", path, a.code, a.body, want)
		}
	}
	to := time.Now()
	if series, _, err := (memory{}).Series(t.Context(), query.Query{From: to.Add(time.Hour), To: to}, time.Second); err != nil || len(series.Lines) != 0 {
		t.Errorf("%v %+v", err, series)
	}
}

// A file's profile has no times of its samples: it is in a time in which it begins, all of it, and in no other.
func TestMemoryOfAFileIsWhole(t *testing.T) {
	p := profileOf(stack(1, "app", "leaf", "main"))
	p.Start, p.Duration = time.Now().Add(-time.Minute), 30*time.Second
	p.Account = profile.Account{Taken: 1, Exported: 1}
	for _, c := range []struct {
		from, to time.Duration
		want     int
	}{{0, 5 * time.Second, 1}, {5 * time.Second, 40 * time.Second, 0}, {-time.Second, time.Hour, 1}} {
		got, _, err := memory{p}.Read(t.Context(), query.Query{From: p.Start.Add(c.from), To: p.Start.Add(c.to)})
		if err != nil || len(got.Samples) != c.want || c.want > 0 && (got.Duration != p.Duration || !got.Start.Equal(p.Start)) {
			t.Errorf("from %s to %s: %d samples of %s, %v", c.from, c.to, len(got.Samples), got.Duration, err)
		}
	}
	foreign := *p
	foreign.Foreign = true
	for _, both := range []memory{{p, &foreign}, {&foreign, p}} {
		got, _, err := both.Read(t.Context(), query.Query{From: p.Start, To: p.Start.Add(time.Second)})
		if err != nil || len(got.Samples) != 2 || !got.Completeness().Untold {
			t.Errorf("of two, one of which does not tell which stacks are whole: %d samples, %v", len(got.Samples), err)
		}
	}
}
