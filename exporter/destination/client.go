package destination

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Verdict is what an error means for the message.
type Verdict int

// Verdicts.
const (
	// Later: the receiver is away, busy, or wrongly set up; the message will do.
	Later Verdict = iota
	// Doubtful: the receiver failed, perhaps because of this message.
	Doubtful
	// Never: the receiver does not take this message.
	Never
)

// Error says why a message was not taken.
type Error struct {
	Verdict Verdict
	// Code is what the receiver answered, such as "HTTP 503" or "unavailable"; "connection" and "timeout" where it did not.
	Code string
	// After is how long the receiver asks to wait.
	After time.Duration
	text  string
}

func (e *Error) Error() string { return e.text }

// Answer is that of a receiver that took a message.
type Answer struct {
	// Rejected items, such as profiles, it did not take.
	Rejected int64
	// Message is its warning, or why it rejected them.
	Message string
}

// maxAnswer bounds what is read of an answer, maxText what is shown of one.
const (
	maxAnswer = 64 << 10
	maxText   = 300
)

// Client sends messages to one receiver, one request each, without tries again. Safe for concurrent use.
type Client struct {
	options Options
	url     *url.URL
	line    *line
	http    *http.Client
	grpc    *connect.Client[message, message]
	secrets *strings.Replacer
}

// line is the way to the receiver: connections, which are all given up where one may be dead.
type line struct {
	make func() *http.Transport
	grpc bool

	mu        sync.Mutex
	transport *http.Transport
}

func (l *line) current() *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.transport == nil {
		l.transport = l.make()
	}
	return l.transport
}

// reset begins anew: a connection that hangs, with a request under way that was given up, is not idle and would be taken again.
func (l *line) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.transport != nil {
		l.transport.CloseIdleConnections()
		l.transport = nil
	}
}

// answered is noted in the context of a request to which an answer came.
type answered struct{}

// RoundTrip takes what is no answer of gRPC, such as a proxy's HTTP 413, for what it is.
func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.current().RoundTrip(r)
	if err != nil || !l.grpc {
		return response, err
	}
	if noted, ok := r.Context().Value(answered{}).(*atomic.Bool); ok {
		noted.Store(true)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxText)) // what there is of it
		return nil, httpError(response, body)
	}
	return response, nil
}

// NewClient checks the options, and that the files of certificates can be read. It connects to nothing.
func NewClient(o Options) (*Client, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	c := &Client{options: o}
	var err error
	if c.url, err = o.url(); err != nil {
		return nil, err
	}
	config, err := tlsConfig(&o, c.url.Hostname())
	if err != nil {
		return nil, err
	}
	c.secrets = secretsOf(o.Headers)
	grpc := o.protocol() == GRPC
	c.line = &line{grpc: grpc, make: func() *http.Transport {
		t := &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableCompression: true,
			IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: o.Timeout, Protocols: new(http.Protocols),
		}
		t.Protocols.SetHTTP2(true)
		t.Protocols.SetUnencryptedHTTP2(grpc)
		t.Protocols.SetHTTP1(!grpc)
		if grpc && c.url.Scheme == "http" {
			t.Proxy = nil // proxies of plain HTTP do not speak HTTP/2
		}
		return t
	}}
	c.http = &http.Client{
		Transport: c.line,
		// Headers, which may be secrets, go nowhere but where they were meant to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if grpc {
		options := []connect.ClientOption{connect.WithGRPC(), connect.WithCodec(rawCodec{}), connect.WithReadMaxBytes(maxAnswer)}
		for _, name := range []string{Gzip, Zstd} {
			options = append(options, connect.WithAcceptCompression(name, newDecompressor(name), newPassing))
		}
		if o.Compression != "" {
			options = append(options, connect.WithSendCompression(o.Compression))
		}
		c.grpc = connect.NewClient[message, message](c.http, c.url.String(), options...)
	}
	return c, nil
}

func tlsConfig(o *Options, host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		if _, err := authorities(o.CAFile); err != nil {
			return nil, err
		}
		// In place of the standard check, so that the file is read anew.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return verify(o.CAFile, host, state) }
	}
	if o.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("OTLP client certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("OTLP certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("OTLP certificate %s: there is no PEM certificate in it", file)
	}
	return pool, nil
}

// verify is what crypto/tls does where InsecureSkipVerify is not set. A state has no name where the host is an address.
func verify(file, host string, state tls.ConnectionState) error {
	pool, err := authorities(file)
	if err != nil {
		return err
	}
	options := x509.VerifyOptions{Roots: pool, DNSName: cmp.Or(state.ServerName, host), Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// Close closes idle connections.
func (c *Client) Close() { c.line.reset() }

// Send sends a message that is encoded as said. Its errors are of type *Error.
func (c *Client) Send(ctx context.Context, body []byte, encoding string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	ctx = context.WithValue(ctx, answered{}, new(atomic.Bool))
	var answer []byte
	var err error
	if c.grpc != nil {
		answer, err = c.call(ctx, body, encoding)
	} else {
		answer, err = c.post(ctx, body, encoding)
	}
	if err != nil {
		return Answer{}, c.explain(ctx, err)
	}
	a := parseAnswer(answer)
	a.Message = c.clean(a.Message)
	return a, nil
}

func (c *Client) headers(h http.Header) {
	for name, value := range c.options.Headers {
		h.Set(name, value)
	}
	if h.Get("User-Agent") == "" { // else it is the user's
		h.Set("User-Agent", "Pilotlight-OTLP/"+c.options.Version)
	}
	if c.options.Signal == Profiles {
		// Receivers that read another version of the signal refuse it, where they would find no values in it.
		h.Set("Otlp-Profiles-Development-Version", "1")
	}
}

func (c *Client) call(ctx context.Context, body []byte, encoding string) ([]byte, error) {
	if encoding != c.options.Compression {
		// It was put into the queue when the agent was started otherwise.
		plain, err := decompress(encoding, body)
		if err == nil && c.options.Compression != "" {
			plain, err = compress(c.options.Compression, plain)
		}
		if err != nil {
			return nil, &Error{Verdict: Never, Code: "damaged", text: err.Error()}
		}
		body = plain
	}
	request := connect.NewRequest(&message{body})
	c.headers(request.Header())
	response, err := c.grpc.CallUnary(ctx, request)
	if err != nil {
		return nil, err
	}
	return response.Msg.body, nil
}

func (c *Client) post(ctx context.Context, body []byte, encoding string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.headers(request.Header)
	request.Header.Set("Content-Type", "application/x-protobuf")
	if encoding != "" {
		request.Header.Set("Content-Encoding", encoding)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode/100 == 2 {
		return answer, err
	}
	return nil, httpError(response, answer)
}

// httpError reads the receiver's words, a google.rpc.Status, or plain text.
func httpError(response *http.Response, body []byte) *Error {
	e := &Error{Code: fmt.Sprintf("HTTP %d", response.StatusCode), Verdict: httpVerdict(response.StatusCode), After: retryAfter(response.Header.Get("Retry-After"))}
	text := strings.TrimSpace(string(body))
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind == "application/x-protobuf" {
		var status statuspb.Status
		if proto.Unmarshal(body, &status) == nil {
			text = status.Message
			for _, detail := range status.Details {
				var info errdetails.RetryInfo
				if detail.MessageIs(&info) && detail.UnmarshalTo(&info) == nil {
					e.After = max(e.After, info.GetRetryDelay().AsDuration())
				}
			}
		}
	} else if strings.HasPrefix(text, "<") { // a page for people
		text = ""
	}
	e.text = strings.TrimSuffix(fmt.Sprintf("%s: %s", response.Status, text), ": ")
	return e
}

func httpVerdict(status int) Verdict {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return Later
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return Later // somebody has to set something up
	}
	switch {
	case status >= 500:
		return Doubtful
	case status >= 400:
		return Never
	}
	return Later // a redirection
}

func retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return min(max(0, time.Duration(seconds)), longestWait/time.Second) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// explain turns any error into an *Error without secrets.
func (c *Client) explain(ctx context.Context, err error) *Error {
	var e *Error
	var rpc *connect.Error
	switch {
	case errors.As(err, &e):
	case errors.As(err, &rpc) && connect.IsWireError(err):
		e = grpcError(rpc)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e = &Error{Code: "timeout", text: fmt.Sprintf("no answer within %s", c.options.Timeout)}
		c.line.reset() // it may be the connection that is dead
	case ctx.Value(answered{}).(*atomic.Bool).Load():
		e = &Error{Verdict: Doubtful, Code: "answer", text: fmt.Sprintf("the receiver's answer is not understood: %v", err)}
	default:
		if errors.As(err, &rpc) {
			err = rpc.Unwrap()
		}
		c.line.reset()
		e = &Error{Code: "connection", text: err.Error() + c.hint(err)}
	}
	e.text = c.clean(e.text)
	return e
}

// grpcError is what the receiver answered. The specification of OTLP says which codes may pass.
func grpcError(err *connect.Error) *Error {
	e := &Error{Code: err.Code().String(), text: fmt.Sprintf("%s: %s", err.Code(), err.Message())}
	if err.Code() > connect.CodeUnauthenticated { // there are no more; a metric of each number would be one of many
		return &Error{Verdict: Doubtful, Code: connect.CodeUnknown.String(), text: e.text}
	}
	asked := false
	for _, detail := range err.Details() {
		if value, valueErr := detail.Value(); valueErr == nil {
			if info, ok := value.(*errdetails.RetryInfo); ok {
				asked, e.After = true, min(max(0, info.GetRetryDelay().AsDuration()), longestWait)
			}
		}
	}
	switch err.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeAborted, connect.CodeCanceled, connect.CodeOutOfRange, connect.CodeDataLoss:
		e.Verdict = Later
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented:
		e.Verdict = Later // somebody has to set something up
	case connect.CodeResourceExhausted:
		if !asked {
			e.Verdict = Never // it is too large
		}
	case connect.CodeInternal, connect.CodeUnknown:
		e.Verdict = Doubtful
	default:
		e.Verdict = Never
	}
	return e
}

// hint says what is probably wrong, where the error's own words do not.
func (c *Client) hint(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "server gave HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		return " (the receiver speaks without TLS: give http://HOST:PORT)"
	case strings.Contains(text, "malformed HTTP response"), strings.Contains(text, "frame too large"), strings.Contains(text, "http2: failed reading the frame payload"):
		return " (the other protocol, perhaps: gRPC is usually port 4317, http/protobuf 4318)"
	}
	if c.url.Scheme == "https" && c.options.CertFile == "" &&
		(strings.Contains(text, "could not be established") || strings.Contains(text, "broken pipe") || strings.Contains(text, "reset by peer") || strings.HasSuffix(text, "EOF")) {
		return " (the receiver may want a client certificate)" // with TLS 1.3 it says so too late
	}
	return ""
}

// secretsOf replaces the values of headers in texts, and their parts: the longest first, for one may begin with another.
func secretsOf(headers map[string]string) *strings.Replacer {
	var secrets []string
	for _, value := range headers {
		secrets = append(secrets, value)
		for _, part := range strings.Fields(value) {
			secrets = append(secrets, part)
			if plain, err := base64.StdEncoding.DecodeString(part); err == nil { // user and password
				secrets = append(secrets, string(plain))
				if _, password, ok := strings.Cut(string(plain), ":"); ok {
					secrets = append(secrets, password)
				}
			}
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	var pairs []string
	for _, s := range secrets {
		if len(s) >= 4 && !strings.EqualFold(s, "bearer") && !strings.EqualFold(s, "basic") {
			pairs = append(pairs, s, "[header]")
		}
	}
	return strings.NewReplacer(pairs...)
}

// clean takes the values of headers out of a text, and what is not printable; the receiver may have repeated them.
func (c *Client) clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(c.secrets.Replace(text), "?"))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

// parseAnswer reads an Export...ServiceResponse, which has the same form for every signal:
// partial_success (1) with the number of rejected items (1) and a message (2).
func parseAnswer(b []byte) Answer {
	var a Answer
	each(b, func(n protowire.Number, _ uint64, partial []byte) {
		if n != 1 {
			return
		}
		each(partial, func(n protowire.Number, v uint64, text []byte) {
			switch n {
			case 1:
				a.Rejected = max(0, int64(v))
			case 2:
				a.Message = string(text)
			}
		})
	})
	return a
}

// each visits the fields of a message as far as it is sound.
func each(b []byte, visit func(n protowire.Number, v uint64, bytes []byte)) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return
		}
		b = b[size:]
		var v uint64
		var content []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			content, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return
		}
		visit(n, v, content)
		b = b[size:]
	}
}
