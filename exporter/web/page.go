package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/exporter/metrics"
	"github.com/pilotlight/pilotlight/profiler/doctor"
)

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"printable": doctor.Printable,
	"percent":   func(p float64) string { return fmt.Sprintf("%.1f %%", p) },
}).ParseFS(assets, "assets/page/*.html"))

// status is what the page shows, and what its script fetches.
type status struct {
	Sampling bool    `json:"sampling"` // whether more samples can come
	State    string  `json:"state"`    // that in words
	Uptime   string  `json:"uptime"`
	Samples  string  `json:"samples"`
	Cost     string  `json:"cost"`
	Span     string  `json:"span"` // what Top is of
	Top      summary `json:"top"`

	Version     string    `json:"version"`
	Hostname    string    `json:"hostname"`
	Target      string    `json:"target"`
	Event       string    `json:"event"`
	FrequencyHz int       `json:"frequency"`
	Started     time.Time `json:"started"`
	History     bool      `json:"history"` // whether times of the past can be asked for
	Account     account   `json:"account"`
	// Files are what is shown instead of what is sampled; none: this is an agent.
	Files []shownFile `json:"files,omitempty"`
}

// account is where the samples went since the start.
type account struct {
	Taken    uint64            `json:"taken"`
	Exported uint64            `json:"exported"`
	Lost     map[string]uint64 `json:"lost"` // by reason
}

func (s *Server) status(ctx context.Context) status {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	up := time.Since(s.options.Profiler.Started())
	now := status{
		Sampling: true,
		State:    "sampling",
		Uptime:   up.Truncate(time.Second).String(),
		Cost:     cost(up),
		Top:      s.recent.summary(),

		Version: s.options.Version, Hostname: s.options.Hostname, Target: s.options.Target, Event: s.options.Event,
		FrequencyHz: s.options.FrequencyHz, Started: s.options.Profiler.Started(), History: s.options.History != nil,
		Account: account{Lost: map[string]uint64{}}, Files: s.files,
	}
	now.Span = "no interval is over yet"
	if now.Top.Seconds > 0 {
		now.Span = fmt.Sprintf("%d samples of the last %.0f s", now.Top.Samples, now.Top.Seconds)
	}
	stats, err := s.options.Profiler.Stats(ctx)
	switch {
	case len(s.files) > 0:
		now.Sampling, now.State = false, "showing files"
	case s.sampled():
		now.Sampling, now.State = false, "sampling has ended"
	case stats.TargetsEnded:
		now.Sampling, now.State = false, "no target process is left"
	}
	if err != nil {
		now.Samples = "unknown: " + err.Error()
		return now
	}
	var lost uint64
	for _, reason := range bpf.SampleReasons {
		now.Account.Lost[reason.String()] = stats.Lost(reason)
		lost += stats.Lost(reason)
	}
	now.Account.Taken, now.Account.Exported = stats.BPF.Taken, stats.Exported
	now.Samples = fmt.Sprintf("%d taken, %d exported, %d lost", stats.BPF.Taken, stats.Exported, lost)
	return now
}

// cost is what the agent takes of its host.
func cost(up time.Duration) string {
	usage, err := metrics.ReadUsage()
	if err != nil {
		return "unknown: " + err.Error()
	}
	cpu := usage.User + usage.System
	return fmt.Sprintf("%.2f s of CPU (%.2f %% of one core), %.0f MB of memory",
		cpu.Seconds(), 100*cpu.Seconds()/max(up.Seconds(), 1), float64(usage.RSS)/1e6)
}

// JSON is for the script of the page, so that it need not ask before it asks for more.
func (s status) JSON() (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}

// statusJSON serves the part of the page that changes.
func (s *Server) statusJSON(w http.ResponseWriter, r *http.Request) {
	s.sendJSON(w, r, s.status(r.Context()))
}

func (s *Server) sendJSON(w http.ResponseWriter, r *http.Request, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		s.options.Log.Error("cannot make an answer", "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, r, body)
}

// page says what runs. The browser learns with its first bytes what the script will ask for first, so that the agent is at it while the script is loaded.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	if first := firstQuery(r.URL.Query()); first != "" && len(s.files) == 0 {
		w.Header().Set("Link", "<"+first+">; rel=preload; as=fetch; crossorigin")
	}
	s.render(w, "index.html", s.status(r.Context()))
}

// firstQuery is the script's first one (main.tsx), letter by letter: of another one the answer would be thrown away. Only pages of a range that goes with the time and of
// nothing else have one here, which most have that are opened and not gone to; more would be a second copy of what the script makes of an address.
func firstQuery(page url.Values) string {
	of, ok := map[string]string{"": "live=true", "15m": "from=-900s", "1h": "from=-3600s", "24h": "from=-86400s"}[page.Get("range")]
	if page.Del("range"); !ok || len(page) > 0 {
		return ""
	}
	return "/api/v1/tree?" + of + "&limit=5000"
}

// index lists what is below /debug/pprof/.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	s.render(w, "pprof.html", struct {
		Options
		URL        string
		Parameters []parameter
	}{s.options, s.scheme() + "://" + r.Host, parameterHelp()})
}

type parameter struct{ Name, Help string }

func parameterHelp() (help []parameter) {
	for _, p := range parameters {
		help = append(help, parameter{p.name, p.help})
	}
	return help
}

func (s *Server) render(w http.ResponseWriter, name string, data any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name, data); err != nil {
		s.options.Log.Error("cannot make a page", "page", name, "err", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = body.WriteTo(w) // a client that went away is its own business
}
