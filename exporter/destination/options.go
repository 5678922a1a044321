package destination

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Signal is a kind of OTLP message.
type Signal string

// Signals that are sent.
const (
	Profiles Signal = "profiles"
	Metrics  Signal = "metrics"
)

// Signals are all of them.
var Signals = []Signal{Profiles, Metrics}

// Where receivers take messages.
var (
	procedures = map[Signal]string{
		Profiles: "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
		Metrics:  "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	}
	paths = map[Signal]string{Profiles: "/v1development/profiles", Metrics: "/v1/metrics"}
)

// Protocols, in the words of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	GRPC = "grpc"
	HTTP = "http/protobuf"
)

// Compressions; "" is none.
const (
	Gzip = "gzip"
	Zstd = "zstd"
)

// DefaultTimeout of a request, that of OpenTelemetry.
const DefaultTimeout = 10 * time.Second

// Options of a Destination, with the meaning of the variables OTEL_EXPORTER_OTLP_*.
type Options struct {
	Signal Signal
	// Endpoint is http(s)://HOST[:PORT][/PATH], or HOST:PORT. By HTTP, the signal's own path comes after PATH, unless Exact says that
	// PATH is all of it; by gRPC there is no path.
	Endpoint string
	Exact    bool
	Protocol string // GRPC or HTTP; "": GRPC
	// Headers of every request. They may be secrets: nothing shows them.
	Headers     map[string]string
	Compression string
	Timeout     time.Duration // of a request; 0: DefaultTimeout
	// CAFile, CertFile, KeyFile are PEM: the authorities that vouch for the receiver ("": the system's), and what this host shows of itself. They are
	// read for each connection, so that they may be renewed.
	CAFile, CertFile, KeyFile string
	// Insecure says that an Endpoint without scheme is http.
	Insecure bool
	// Version of this program, for the user agent.
	Version string
}

// Name is the endpoint without what could be secret in it.
func (o *Options) Name() string {
	u, err := o.url()
	if err != nil {
		return "?"
	}
	if o.protocol() == GRPC {
		u.Path = ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// url is where requests go.
func (o *Options) url() (*url.URL, error) {
	text := o.Endpoint
	if !strings.Contains(text, "://") {
		scheme := "https://"
		if o.Insecure {
			scheme = "http://"
		}
		text = scheme + text
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil { // its text is not repeated: it may hold a password
		return nil, errors.New("OTLP endpoint: want http(s)://HOST:PORT without user and password; those go into a header")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("OTLP endpoint %q: want http(s)://HOST:PORT", o.Endpoint)
	}
	if o.protocol() == GRPC {
		return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: procedures[o.Signal]}, nil
	}
	if !o.Exact {
		u.Path = strings.TrimSuffix(u.Path, "/") + paths[o.Signal]
	} else if u.Path == "" {
		u.Path = "/" // so OpenTelemetry's specification
	}
	return u, nil
}

func (o *Options) protocol() string {
	if o.Protocol == "" {
		return GRPC
	}
	return o.Protocol
}

// Check says whether the options make sense. Nothing is opened.
func (o *Options) Check() error {
	if !slices.Contains([]string{GRPC, HTTP}, o.protocol()) {
		return fmt.Errorf("OTLP protocol %q: want %s or %s", o.Protocol, GRPC, HTTP)
	}
	if !slices.Contains(Signals, o.Signal) {
		return fmt.Errorf("OTLP signal %q: want one of %q", o.Signal, Signals)
	}
	if !slices.Contains([]string{"", Gzip, Zstd}, o.Compression) {
		return fmt.Errorf("OTLP compression %q: want %s, %s or none", o.Compression, Gzip, Zstd)
	}
	if o.Timeout < 0 {
		return fmt.Errorf("OTLP timeout %s: want more than 0", o.Timeout)
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("OTLP client certificate and key: want both or none")
	}
	for name, value := range o.Headers {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("OTLP header %q: that is no name of a header", name)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("OTLP header %q: its value holds what no header may", name)
		}
		if reserved(name) {
			return fmt.Errorf("OTLP header %q: the protocol sets it itself", name)
		}
	}
	_, err := o.url()
	return err
}

func reserved(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return strings.HasPrefix(name, "Grpc-") || slices.Contains([]string{
		"Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Te", "Connection", "Host",
	}, name)
}

// ParseHeaders understands OTEL_EXPORTER_OTLP_HEADERS: KEY=VALUE,KEY=VALUE, with values in the percent encoding of URLs. Errors do not show values.
func ParseHeaders(text string) (map[string]string, error) {
	headers := make(map[string]string)
	for n, pair := range strings.Split(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("OTLP headers: number %d is not KEY=VALUE", n+1)
		}
		name = strings.TrimSpace(name)
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("OTLP headers: the value of number %d is not in percent encoding: a %% itself is %%25", n+1)
		}
		headers[name] = decoded
	}
	return headers, nil
}
