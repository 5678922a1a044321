package destination

import (
	"fmt"
	"io"
	"net/http"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/queue"
)

// metricsTransport stands where OpenTelemetry's exporter of metrics expects the network: what it posts goes into the queues. So metrics
// are encoded by the library, and are sent, kept and counted as profiles are.
type metricsTransport struct{ destinations []*Destination }

// NewMetricsTransport takes the requests of OTLP over HTTP, without compression, for destinations of [Metrics].
func NewMetricsTransport(to []*Destination) http.RoundTripper { return &metricsTransport{to} }

func (t *metricsTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	plain, err := io.ReadAll(r.Body)
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	var m metricspb.MetricsData // ExportMetricsServiceRequest has the same field
	if err := proto.Unmarshal(plain, &m); err != nil {
		return nil, fmt.Errorf("OTLP metrics: %w", err)
	}
	now := time.Now()
	h := queue.Header{Items: points(&m), Start: now, End: now}
	message := NewMessage(plain)
	for _, d := range t.destinations {
		if err := d.Put(h, message); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, Body: http.NoBody,
		Header: http.Header{"Content-Type": {"application/x-protobuf"}}, ContentLength: 0,
	}, nil
}

// points counts what receivers count.
func points(m *metricspb.MetricsData) (n uint64) {
	for _, r := range m.ResourceMetrics {
		for _, s := range r.ScopeMetrics {
			for _, metric := range s.Metrics {
				n += uint64(len(metric.GetSum().GetDataPoints()) + len(metric.GetGauge().GetDataPoints()) + len(metric.GetHistogram().GetDataPoints()) +
					len(metric.GetExponentialHistogram().GetDataPoints()) + len(metric.GetSummary().GetDataPoints()))
			}
		}
	}
	return n
}
