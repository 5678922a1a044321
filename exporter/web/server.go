// Package web is the agent's HTTP server: profiles to download, metrics,
// health, and a page that says what runs.
//
// The caller supplies the profiler, a handler for metrics and a listener, and
// hands over the profile of every interval, which the page shows. The server
// answers the host it runs on; CheckListen says what else it wants before it
// answers others. It changes nothing: methods other than GET and HEAD are refused.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Profiler is what the server needs of the profiler.
type Profiler interface {
	// Collect returns what it has when ctx ends.
	Collect(ctx context.Context, f collect.Filter, d time.Duration) (*profile.Profile, error)
	Stats(ctx context.Context) (collect.Stats, error)
	Started() time.Time
	Done() <-chan struct{}
}

// Options of a Server. Only Profiler, or Files, and Listen are required.
type Options struct {
	Profiler Profiler
	// Metrics serves /metrics; nil: there is none.
	Metrics http.Handler
	// History answers what asks for the past; nil: there is none.
	History History
	// Hurry, if not nil, is called when an answer of the history begins to be made, and what it returns when that has been done.
	Hurry func() (done func())
	// Files are shown in place of all that, if there are any: one, or two to be compared.
	Files []File
	// Listen is the address as the user gave it; requests may name it as their Host.
	Listen string
	// Hosts are further names that requests may use, such as that of a certificate.
	Hosts    []string
	Security Security

	// What the page tells.
	Version     string
	Hostname    string // default: the machine's
	Target      string // such as "the whole host"
	Event       string // such as "cpu"
	FrequencyHz int

	Log *slog.Logger // default: nothing is logged
}

// Server serves from Serve until its context ends. Export may be called at any time.
type Server struct {
	options Options
	guard   *guard
	tls     *tls.Config // nil: plain HTTP
	slots   chan struct{}
	queries chan struct{}
	recent  recentProfiles
	files   []shownFile
	// stopping ends when Serve begins to end: profiles under way return what they have.
	stopping context.Context
	stop     context.CancelFunc
}

const (
	// maxDownloads bounds the profiles being collected for clients. Each is a map of
	// stacks that grows for up to ten minutes.
	maxDownloads = 16
	// retryAfter is what a client beyond it is told to wait.
	retryAfter = 10 * time.Second

	// grace is how long answers under way may take after the end was asked for; the whole agent has 5 s.
	grace = 3 * time.Second

	readHeaderTimeout = 10 * time.Second
	writeTimeout      = 30 * time.Second // from the request's end, or from the moment a profile is complete
	idleTimeout       = 2 * time.Minute
	statsTimeout      = 5 * time.Second
	maxHeaderBytes    = 16 << 10
)

// New checks the options, and reads the token and the certificate.
func New(o Options) (*Server, error) {
	var shown memory
	var files []shownFile
	if len(o.Files) > 0 {
		shown, files = show(o.Files)
		o.Profiler, o.History = nothingSampled{time.Now()}, shown
	}
	if o.Profiler == nil {
		return nil, errors.New("web: no profiler given")
	}
	if err := CheckListen(o.Listen, o.Security); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname() // the page has a gap without it, no more
	}
	s := &Server{options: o, files: files, slots: make(chan struct{}, maxDownloads), queries: make(chan struct{}, maxQueries)}
	var err error
	if s.guard, err = newGuard(o); err != nil {
		return nil, err
	}
	if s.tls, err = o.Security.tlsConfig(); err != nil {
		return nil, err
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	if len(shown) > 0 {
		s.Export(shown[len(shown)-1])
	}
	return s, nil
}

// URL is where a listener's pages are.
func (s *Server) URL(listener net.Listener) string {
	return s.scheme() + "://" + listener.Addr().String()
}

func (s *Server) scheme() string {
	if s.tls != nil {
		return "https"
	}
	return "http"
}

// Serve answers requests until ctx ends, and closes the listener. Profiles
// under way are then answered with what they have; it returns within grace. Call it once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.guard.protect(s.routes()),
		TLSConfig:         s.tls,
		ReadHeaderTimeout: readHeaderTimeout, // and no ReadTimeout: it would end the context of a long profile
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// What strangers send that is no HTTP, or no TLS, is not worth a warning.
		ErrorLog: slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
	}
	defer s.stop()
	go s.firstLook()
	ended := make(chan error, 1)
	go func() {
		if s.tls != nil {
			ended <- server.ServeTLS(listener, "", "")
		} else {
			ended <- server.Serve(listener)
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stop()
	graceful, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := server.Shutdown(graceful); err != nil {
		s.options.Log.Warn("clients were cut off: they did not take their answers in time", "grace", grace)
		_ = server.Close() // it has no more to say than that connections were open
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.page)
	mux.HandleFunc("/api/v1/status", s.statusJSON)
	s.routeHistory(mux)
	mux.HandleFunc("/debug/pprof/{$}", s.index)
	mux.HandleFunc("/debug/pprof/profile", s.profile)
	mux.HandleFunc("/healthz", s.healthz)
	mux.HandleFunc("/readyz", s.readyz)
	mux.HandleFunc("/api/v1/session", s.session)
	mux.Handle("/speedscope/", withPolicy(speedscopePolicy, files("speedscope", cacheAsked)))
	mux.Handle("/static/", files("static", cacheAsked))
	mux.Handle("/assets/", files("page/assets", cacheForever))
	if s.options.Metrics != nil {
		mux.Handle("/metrics", s.options.Metrics)
	}
	return mux
}

// healthz is 200 as long as the agent does its work; otherwise it should be started anew.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.sampled() {
		http.Error(w, "sampling has ended", http.StatusServiceUnavailable)
		return
	}
	writeText(w, "ok\n")
}

// readyz is 200 while there is something to ask for.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.sampled():
		http.Error(w, "sampling has ended", http.StatusServiceUnavailable)
	case s.stopping.Err() != nil:
		http.Error(w, "the agent is stopping", http.StatusServiceUnavailable)
	case s.options.Profiler.Started().IsZero():
		http.Error(w, "sampling has not begun", http.StatusServiceUnavailable)
	default:
		writeText(w, "ready\n")
	}
}

// sampled tells whether sampling is over.
func (s *Server) sampled() bool {
	select {
	case <-s.options.Profiler.Done():
		return true
	default:
		return false
	}
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text)) // a client that went away is its own business
}
