package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/speedscope"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// profile sends a profile as pprof: one that it collects, or one of the past where a time or a filter is given. The pprof tool shows the text of an error
// only where X-Go-Pprof is set.
func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	if isHistory(r.URL.RawQuery) {
		s.pastProfile(w, r)
		return
	}
	w.Header().Set("X-Go-Pprof", "1")
	q, err := parseQuery(r.URL.RawQuery)
	if err == nil {
		err = host{"/proc"}.resolve(&q)
	}
	if err != nil {
		s.refuse(w, err)
		return
	}
	if r.Method == http.MethodHead {
		downloads["pprof"].setHeader(w.Header())
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		http.Error(w, strconv.Itoa(maxDownloads)+" profiles are being collected, as many as this agent collects at once: try again later",
			http.StatusTooManyRequests)
		return
	}
	s.download(w, r, q)
}

// download sends what was collected when the time is over or the server stops. A client that
// goes away ends the collection.
func (s *Server) download(w http.ResponseWriter, r *http.Request, q liveQuery) {
	control := http.NewResponseController(w)
	// The time to write counts from the end of the collection. A writer without deadlines has none to lift.
	_ = control.SetWriteDeadline(time.Time{})

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	p, err := s.options.Profiler.Collect(ctx, q.filter, q.duration)

	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	switch {
	case r.Context().Err() != nil:
		return // nobody is there to read it
	case errors.Is(err, collect.ErrNotOfTarget):
		s.refuse(w, badRequest("%v, which is %s: leave pid out, or ask an agent that samples that process", err, s.options.Target))
		return
	case errors.Is(err, errNothingSampled):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil && (s.stopping.Err() != nil || s.sampled()):
		http.Error(w, "the agent is stopping: "+err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		s.options.Log.Error("cannot collect a profile", "err", err)
		http.Error(w, "the profile could not be collected: "+err.Error(), http.StatusInternalServerError)
		return
	}
	s.send(w, fulfilling(p, q.conditions))
}

// fulfilling leaves of a profile the samples that fulfil conditions. The others count as those that a filter of processes left out.
func fulfilling(p *profile.Profile, f query.Filter) *profile.Profile {
	if len(f) == 0 {
		return p
	}
	out := *p
	out.Samples = nil
	for _, s := range p.Samples {
		if f.Matches(s.Labels) {
			out.Samples = append(out.Samples, s)
			continue
		}
		out.Account.Exported -= uint64(s.Count)
		out.Account.Filtered += uint64(s.Count)
	}
	return &out
}

func (s *Server) send(w http.ResponseWriter, p *profile.Profile) {
	var body bytes.Buffer
	if err := pprof.Write(&body, p); err != nil {
		s.options.Log.Error("cannot write a profile", "err", err)
		http.Error(w, "the profile could not be written: "+err.Error(), http.StatusInternalServerError)
		return
	}
	downloads["pprof"].send(w, &body)
}

// download is a format of profiles.
type download struct {
	// write takes how complete the profile was before anything was left out of its stacks, and what it lacks.
	write     func(w io.Writer, p *profile.Profile, c profile.Completeness, comments ...string) error
	mediaType string
	name      string
	// streamed says that it is sent as it is written. Each name stands in each stack that has it: what is written has no bound, as what it is written of has.
	streamed bool
}

// downloads by the names that record and query give them.
var downloads = map[string]download{
	"pprof": {func(w io.Writer, p *profile.Profile, _ profile.Completeness, comments ...string) error {
		return pprof.Write(w, p, comments...)
	}, "application/octet-stream", "profile.pb.gz", false},
	"folded":     {samplesAlone(folded.Write), "text/plain; charset=utf-8", "profile.folded", true},
	"html":       {writeHTML, "text/html; charset=utf-8", "profile.html", false},
	"speedscope": {samplesAlone(speedscope.Write), "application/json", "profile.speedscope.json", false},
}

// samplesAlone is for formats that have no place for more.
func samplesAlone(write func(io.Writer, *profile.Profile) error) func(io.Writer, *profile.Profile, profile.Completeness, ...string) error {
	return func(w io.Writer, p *profile.Profile, _ profile.Completeness, _ ...string) error { return write(w, p) }
}

func (d download) setHeader(h http.Header) {
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
}

func (d download) send(w http.ResponseWriter, body *bytes.Buffer) {
	d.setHeader(w.Header())
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	_, _ = body.WriteTo(w) // a client that goes away now has seen the agent do its part
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		http.Error(w, refused.text, refused.status)
		return
	}
	s.options.Log.Error("cannot look up what a request names", "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
