package destination

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// What a trial sends, by which it is found at the receiver.
const (
	TrialService  = "pilotlight-doctor"
	TrialFunction = "pilotlight.doctor"
	TrialSamples  = 7
	TrialMetric   = "pilotlight.doctor.trial"
)

// Trial is what became of a test message. As JSON its field names are stable.
type Trial struct {
	Signal   Signal `json:"signal"`
	Endpoint string `json:"endpoint"`
	Protocol string `json:"protocol"`
	Taken    bool   `json:"taken"`
	// Millis is how long the answer took, Bytes what was sent.
	Millis float64 `json:"millis"`
	Bytes  int     `json:"bytes"`
	// Error is why it was not taken, Warning what the receiver said of one that it took.
	Error   string `json:"error,omitempty"`
	Warning string `json:"warning,omitempty"`
	// Remedy is what to do; "" where nothing is known.
	Remedy string `json:"remedy,omitempty"`
}

// Try sends a message of one sample or data point, once. Where it is not taken it tries the other protocol, the other of http and https, and the
// usual port of each, to tell what is wrong.
func Try(ctx context.Context, o Options) Trial {
	t := Trial{Signal: o.Signal, Endpoint: o.Name(), Protocol: o.protocol()}
	plain, err := trialMessage(&o)
	if err != nil {
		t.Error = err.Error()
		return t
	}
	began := time.Now()
	answer, bytes, err := send(ctx, o, plain)
	t.Millis, t.Bytes = float64(time.Since(began).Microseconds())/1000, bytes
	if err != nil {
		t.Error, t.Remedy = err.Error(), remedy(ctx, o, plain, err)
		return t
	}
	t.Taken, t.Warning = answer.Rejected == 0, answer.Message
	if answer.Rejected > 0 {
		t.Error = fmt.Sprintf("the receiver answered that it is well, and rejected the message: %s", answer.Message)
		t.Warning = ""
	}
	return t
}

func send(ctx context.Context, o Options, plain []byte) (Answer, int, error) {
	client, err := NewClient(o)
	if err != nil {
		return Answer{}, 0, err
	}
	defer client.Close()
	body, err := NewMessage(plain).body(o.Compression)
	if err != nil {
		return Answer{}, 0, err
	}
	answer, err := client.Send(ctx, body, o.Compression)
	return answer, len(body), err
}

// remedy tells what to do about an error.
func remedy(ctx context.Context, o Options, plain []byte, err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Code {
	case "unauthenticated", "permission_denied", "HTTP 401", "HTTP 403":
		return "give the credentials that the receiver wants by --otlp-headers, or OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Bearer%20TOKEN"
	case "HTTP 407":
		return "the proxy wants credentials: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
	}
	if text := certificateRemedy(e.Error()); e.Code == "connection" && text != "" {
		return text // whoever is there instead is not to be asked
	}
	for _, other := range alternatives(o, e) {
		_, _, err := send(ctx, other, plain)
		var refused *Error
		if errors.As(err, &refused) && slices.Contains([]string{"unauthenticated", "permission_denied", "HTTP 401", "HTTP 403"}, refused.Code) {
			err = nil // it was sent without headers, and understood
		}
		if err == nil {
			return fmt.Sprintf("the receiver answers at %s by %s: give --otlp-endpoint %s --otlp-protocol %s", other.Name(), other.protocol(), base(&other), other.protocol())
		}
	}
	switch e.Code {
	case "unimplemented", "HTTP 404":
		if o.Signal == Profiles {
			return "the receiver has no profiles: start a Collector with --feature-gates=service.profilesSupport and a pipeline of profiles, or name another receiver by --otlp-profiles-endpoint"
		}
		return fmt.Sprintf("the receiver has no %s: add a pipeline, or name another receiver by --otlp-%s-endpoint", o.Signal, o.Signal)
	case "timeout":
		return "a firewall may swallow it, or the receiver is overloaded; --otlp-timeout waits longer"
	case "connection":
		text := e.Error()
		switch {
		case strings.Contains(text, "connection refused"):
			return "nothing listens there: start the receiver, or correct host and port"
		case strings.Contains(text, "no such host"), strings.Contains(text, "server misbehaving"):
			return "the name is not known: correct it, or look at /etc/resolv.conf"
		}
	}
	return ""
}

// certificateRemedy is "" where an error is not of certificates.
func certificateRemedy(text string) string {
	switch {
	case strings.Contains(text, "unknown authority"):
		return "give the file of the authority that vouches for the receiver by --otlp-certificate"
	case strings.Contains(text, "certificate is valid for"), strings.Contains(text, "doesn't contain any IP SANs"), strings.Contains(text, "not valid for any names"):
		return "the receiver's certificate is for another name: use that in the endpoint"
	case strings.Contains(text, "client certificate"), strings.Contains(text, "certificate required"), strings.Contains(text, "bad certificate"):
		return "give --otlp-client-certificate and --otlp-client-key"
	case strings.Contains(text, "certificate"):
		return "the receiver's certificate is not good: look at its dates and names"
	}
	return ""
}

// base is what goes into --otlp-endpoint.
func base(o *Options) string {
	u, err := o.url()
	if err != nil {
		return o.Endpoint
	}
	return u.Scheme + "://" + u.Host + strings.TrimSuffix(strings.TrimSuffix(u.Path, procedures[o.Signal]), paths[o.Signal])
}

// alternatives are what could have been meant.
func alternatives(o Options, e *Error) (list []Options) {
	u, err := o.url()
	if err != nil {
		return nil
	}
	const grpcPort, httpPort = "4317", "4318"
	schemes := []string{u.Scheme, "https"}
	if u.Scheme == "https" {
		schemes = schemes[:1]
		if strings.Contains(e.Error(), "without TLS") { // it said so itself
			schemes = append(schemes, "http")
		}
	}
	hosts := []string{u.Host}
	switch u.Port() {
	case grpcPort:
		hosts = append(hosts, net.JoinHostPort(u.Hostname(), httpPort))
	case httpPort:
		hosts = append(hosts, net.JoinHostPort(u.Hostname(), grpcPort))
	}
	for _, host := range hosts {
		for _, protocol := range []string{GRPC, HTTP} {
			for _, scheme := range schemes {
				other := o
				other.Protocol, other.Exact = protocol, false
				other.Endpoint = (&url.URL{Scheme: scheme, Host: host}).String()
				other.Timeout = min(cmp.Or(o.Timeout, DefaultTimeout), 2*time.Second)
				other.Headers = nil // they may be secrets, and this is not where they were meant to go
				if other.Name() != o.Name() || protocol != o.protocol() {
					list = append(list, other)
				}
			}
		}
	}
	return list
}

func trialMessage(o *Options) ([]byte, error) {
	if o.Signal == Metrics {
		return proto.Marshal(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{
			Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
				{Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: TrialService}}},
			}},
			ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{{
				Name: TrialMetric, Unit: "1", Description: "A test message.",
				Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{
					{TimeUnixNano: uint64(time.Now().UnixNano()), Value: &metricspb.NumberDataPoint_AsInt{AsInt: 1}},
				}}},
			}}}},
		}}})
	}
	encoder, err := otlp.NewEncoder(otlp.Options{Version: o.Version, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples})
	if err != nil {
		return nil, err
	}
	f := &profile.Function{Name: TrialFunction}
	stack := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameNative, Lines: []profile.Line{{Function: f}}}}, Root: true}
	const period = int64(time.Second / 100)
	p := &profile.Profile{
		Type: profile.TypeCPU, Period: period, Start: time.Now().Add(-time.Second), Duration: time.Second,
		Samples: []profile.Sample{{User: stack, Labels: &profile.Labels{Comm: TrialService}, Count: TrialSamples, Value: TrialSamples * period}},
		Account: profile.Account{Taken: TrialSamples, Exported: TrialSamples},
	}
	var plain []byte
	err = encoder.Encode(p, func(m otlp.Message) error {
		plain = m.Data
		return nil
	})
	return plain, err
}
