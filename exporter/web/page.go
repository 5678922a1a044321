package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/exporter/metrics"
	"github.com/pilotlight/pilotlight/profiler/collect"
)

//go:embed assets
var assets embed.FS

// files serves a directory of the assets.
func files(dir string) http.Handler {
	files, err := fs.Sub(assets, dir)
	if err != nil {
		panic(err) // the name is a constant: it is valid
	}
	return http.FileServerFS(files)
}

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"percent": func(p float64) string { return fmt.Sprintf("%.1f %%", p) },
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
	}
	now.Span = "no interval is over yet"
	if now.Top.Seconds > 0 {
		now.Span = fmt.Sprintf("%d samples of the last %.0f s", now.Top.Samples, now.Top.Seconds)
	}
	stats, err := s.options.Profiler.Stats(ctx)
	switch {
	case s.sampled():
		now.Sampling, now.State = false, "sampling has ended"
	case stats.TargetsEnded:
		now.Sampling, now.State = false, "no target process is left"
	}
	if err != nil {
		now.Samples = "unknown: " + err.Error()
		return now
	}
	now.Samples = accounts(&stats)
	return now
}

// accounts tells where the samples went.
func accounts(stats *collect.Stats) string {
	var lost uint64
	for _, reason := range bpf.SampleReasons {
		lost += stats.Lost(reason)
	}
	return fmt.Sprintf("%d taken, %d exported, %d lost", stats.BPF.Taken, stats.Exported, lost)
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

// statusJSON serves the part of the page that changes.
func (s *Server) statusJSON(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(s.status(r.Context()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that went away is its own business
}

// page says what runs.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	s.render(w, "index.html", struct {
		Options
		status
	}{s.options, s.status(r.Context())})
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
