package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Files without a time, and two of the same time, are each found where the page is told to look, and compared without being named.
func TestFiles(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, begin := range map[string][2]time.Time{"apart": {at, at.Add(time.Hour)}, "same": {at, at}, "unknown": {}, "backwards": {at.Add(time.Hour), at}} {
		before, after := profileOf(stack(1, "app", "old", "main")), profileOf(stack(1, "app", "new", "main"), stack(1, "app", "new", "main"))
		before.Start, after.Start = begin[0], begin[1]
		s := serve(t, Options{Files: []File{{"a", before}, {"b", after}}})
		var now status
		if err := json.Unmarshal([]byte(s.get(t, "/api/v1/status").body), &now); err != nil || now.Sampling || len(now.Files) != 2 {
			t.Fatalf("%s: %v %+v", name, err, now)
		}
		if now.Files[0].Moved != (name != "apart") || now.Files[1].Moved != (name == "unknown") || !now.Files[0].To.Before(now.Files[1].From) {
			t.Errorf("%s: %+v", name, now.Files)
		}
		for i, want := range []string{"old", "new"} {
			f := now.Files[i]
			span := "?from=" + url.QueryEscape(f.From.Format(time.RFC3339Nano)) + "&to=" + url.QueryEscape(f.To.Format(time.RFC3339Nano))
			if a := s.get(t, "/api/v1/top"+span); !strings.Contains(a.body, `"name":"`+want+`"`) || strings.Contains(a.body, "old") != (i == 0) {
				t.Errorf("%s: %s: %s", name, f.Name, a.body)
			}
		}
		for path, want := range map[string]string{
			"/api/v1/tree": `"samples":2`, "/api/v1/top?live=true": `"name":"new"`, "/api/v1/diff": `"name":"old"`, "/api/v1/diff?scale=time": `"name":"old"`, "/": "showing files",
			"/api/v1/series?from=-1m&step=1s": `"samples":[0,`, "/healthz": "ok", "/readyz": "ready",
		} {
			if a := s.get(t, path); a.code != http.StatusOK || !strings.Contains(a.body, want) {
				t.Errorf("%s: %s: %d %s", name, path, a.code, a.body)
			}
		}
		if a := s.get(t, "/debug/pprof/profile?seconds=1"); a.code != http.StatusNotFound {
			t.Errorf("%d %s", a.code, a.body)
		}
	}
	// What another program wrote does not tell which stacks are whole.
	foreign := profileOf(stack(1, "app", "f", "main"))
	foreign.Foreign = true
	if a := serve(t, Options{Files: []File{{"-", foreign}}}).get(t, "/api/v1/tree"); !strings.Contains(a.body, `"trust":{"stacks":1,"whole":null,"frames":2,"named":2,`) {
		t.Error(a.body)
	}
	if _, err := New(Options{Listen: "127.0.0.1:0"}); err == nil {
		t.Error("neither a profiler nor files, and no error")
	}
	one := serve(t, Options{Files: []File{{"-", &profile.Profile{Type: profile.Type{Name: "inuse_space", Unit: "bytes"}, Samples: []profile.Sample{stack(1, "app", "f")}}}}})
	if a := one.get(t, "/api/v1/tree"); a.code != http.StatusOK || !strings.Contains(a.body, `"unit":"bytes"`) || !strings.Contains(a.body, `"name":"f"`) {
		t.Errorf("%d %s", a.code, a.body)
	}
}
