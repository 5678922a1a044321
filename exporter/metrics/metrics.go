// Package metrics tells what the profiler did and what it costs, as
// OpenTelemetry metrics that Prometheus reads.
//
// The caller supplies a source of counts, hands over the profile of every
// interval, and serves Handler. Each scrape reads the source once, so that the
// terms of one answer belong together; nothing is measured between scrapes.
//
// Metric names are those of OpenTelemetry ("pilotlight.samples.taken", unit
// "{sample}"); Prometheus sees "pilotlight_samples_taken_total".
package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/pilotlight/pilotlight/exporter"
	"github.com/pilotlight/pilotlight/exporter/destination"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/upload"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Source gives what was counted since the start; no count may ever go down.
type Source interface {
	Stats(ctx context.Context) (collect.Stats, error)
}

// Options of Metrics; all may be left out.
type Options struct {
	Version string       // of the program, for pilotlight_build_info
	Log     *slog.Logger // default: nothing is logged
	// Exporters says what became of the samples handed to each exporter; nil: there are none.
	Exporters func() []exporter.Account
	// History says what became of the history on disk; nil: there is none.
	History func() store.Stats
	// Destinations say what became of what was sent by OTLP; nil: there are none.
	Destinations func() []destination.Stats
	// Push takes the requests of OTLP over HTTP that hold the metrics, every PushEvery; nil: nothing is pushed.
	Push      http.RoundTripper
	PushEvery time.Duration
	// Resource is whose metrics they are, for those that are pushed.
	Resource *resource.Resource
	// Groups change the groups of functions (docs/metrics.md): a regular expression by the name of a group adds or replaces it, "" takes it away.
	Groups map[string]string
	// Upload says what became of its copy in object storage; nil: there is none.
	Upload func() upload.Stats
}

// Metrics is safe for concurrent use. Its owner calls Shutdown.
type Metrics struct {
	source   Source
	options  Options
	provider *metric.MeterProvider
	handler  http.Handler
	profiles *profileCounts

	mu       sync.Mutex
	last     collect.Stats // what the source said last
	failures int64         // times it said nothing
}

const (
	// statsTimeout bounds the wait for the source: a scrape must come before Prometheus gives up, after 10 s by default.
	statsTimeout = 5 * time.Second
	// maxScrapes at once; more get 503.
	maxScrapes = 4
)

// New makes the metrics of a source, on a registry of their own.
func New(source Source, o Options) (*Metrics, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	groups, err := newGroups(o.Groups)
	if err != nil {
		return nil, err
	}
	m := &Metrics{source: source, options: o, profiles: newProfileCounts(groups)}
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(
		otelprometheus.WithRegisterer(registry),
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		// One scope, one resource: their labels on every series would say nothing.
		otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("open the Prometheus exporter: %w", err)
	}
	options := []metric.Option{metric.WithReader(reader), metric.WithResource(o.Resource)}
	if o.Push != nil {
		pusher, err := newPusher(o.Push, o.PushEvery)
		if err != nil {
			return nil, err
		}
		options = append(options, metric.WithReader(pusher))
	}
	m.provider = metric.NewMeterProvider(options...)
	if err := register(m.provider.Meter("github.com/pilotlight/pilotlight"), m.snapshot); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// One series that cannot be written must not cost all others.
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		MaxRequestsInFlight: maxScrapes,
	})
	return m, nil
}

// newPusher makes OTLP requests of the metrics. Whoever takes them sends them: of the exporter's own settings, which it reads from the environment, none is
// used.
func newPusher(to http.RoundTripper, every time.Duration) (metric.Reader, error) {
	e, err := otlpmetrichttp.New(context.Background(),
		otlpmetrichttp.WithHTTPClient(&http.Client{Transport: to}), otlpmetrichttp.WithEndpointURL("http://push.invalid"+otlpPath),
		otlpmetrichttp.WithCompression(otlpmetrichttp.NoCompression), otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{}),
		// Functions come and go among the hottest; of a difference to the time before nothing would be right.
		otlpmetrichttp.WithTemporalitySelector(metric.CumulativeTemporalitySelector))
	if err != nil {
		return nil, fmt.Errorf("open the OTLP exporter of metrics: %w", err)
	}
	return metric.NewPeriodicReader(e, metric.WithInterval(every)), nil
}

const otlpPath = "/v1/metrics"

// Handler serves the text that Prometheus reads.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Export adds the profile of an interval: CPU time by process, and what is
// missing of its stacks and names. Its time is that of reading the profile once.
func (m *Metrics) Export(p *profile.Profile) { m.profiles.add(p) }

// Shutdown ends the metrics; scrapes after it find none. It may be called more than once.
func (m *Metrics) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	provider := m.provider
	m.provider = nil
	m.mu.Unlock()
	if provider == nil {
		return nil
	}
	if err := provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut metrics down: %w", err)
	}
	return nil
}

// snapshot is everything that one scrape shows.
type snapshot struct {
	collect.Stats
	failures   int64
	usage      Usage
	goroutines int
	version    string
	exporters  []exporter.Account
	history    store.Stats
	upload     upload.Stats
	to         []destination.Stats
	profileTotals
}

// snapshot asks the source once. Where it does not answer, its last counts
// stand: a counter that vanishes or falls would look like a restart.
func (m *Metrics) snapshot(ctx context.Context) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	stats, err := m.source.Stats(ctx)
	var exporters []exporter.Account
	if m.options.Exporters != nil {
		exporters = m.options.Exporters()
	}
	var history store.Stats
	if m.options.History != nil {
		history = m.options.History()
	}
	var uploaded upload.Stats
	if m.options.Upload != nil {
		uploaded = m.options.Upload()
	}
	var destinations []destination.Stats
	if m.options.Destinations != nil {
		destinations = m.options.Destinations()
	}
	usage, usageErr := ReadUsage()
	if usageErr != nil {
		m.options.Log.Warn("cannot read what the agent itself uses", "err", usageErr)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.failures++
		m.options.Log.Warn("the profiler gives no counts; the metrics show its last ones", "err", err)
	} else {
		m.last = stats
	}
	return &snapshot{
		Stats:         m.last,
		failures:      m.failures,
		usage:         usage,
		goroutines:    runtime.NumGoroutine(),
		version:       m.options.Version,
		exporters:     exporters,
		history:       history,
		upload:        uploaded,
		to:            destinations,
		profileTotals: m.profiles.totals(),
	}
}
