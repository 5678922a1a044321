// Package receiver is a receiver of OTLP for tests: it takes profiles and metrics by gRPC and by HTTP, and fails in every way that
// receivers fail in. The tests against the OpenTelemetry Collector (test/collector) say whether the messages are right; here it is about those
// that are not taken.
package receiver

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	profilespb "go.opentelemetry.io/proto/otlp/collector/profiles/v1development"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Reply is what a request gets; the zero value takes it.
type Reply struct {
	// Status refuses a request over HTTP, Code one over gRPC.
	Status int
	Code   connect.Code
	// RetryAfter asks for a pause.
	RetryAfter time.Duration
	Text       string
	// Rejected says that so many items were not taken.
	Rejected int64
	// Delay comes before the answer; Abort, after it, breaks the connection off instead. Taken says that the message was taken nonetheless.
	Delay        time.Duration
	Abort, Taken bool
}

// Request is what came.
type Request struct {
	Signal   string // "profiles" or "metrics"
	Protocol string // "grpc" or "http/protobuf"
	Header   http.Header
	Profiles *profilespb.ExportProfilesServiceRequest
	Metrics  *metricspb.ExportMetricsServiceRequest
	At       time.Time
	// Bytes came over the wire, compressed, with what protocols add; of HTTP and gRPC, but not of the packets.
	Bytes int64
}

// Receiver runs until it is closed. Safe for concurrent use.
type Receiver struct {
	answer   func(*Request) Reply
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex
	requests []*Request // all
	taken    []*Request
}

// Start serves at an address, such as "127.0.0.1:0"; config is nil for no TLS. Answer, which may be nil, decides on each request.
func Start(address string, config *tls.Config, answer func(*Request) Reply) (*Receiver, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	r := &Receiver{answer: answer, listener: listener}
	mux := http.NewServeMux()
	profiles := connect.NewUnaryHandler("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", r.callProfiles)
	metrics := connect.NewUnaryHandler("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", r.callMetrics)
	mux.Handle("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", profiles)
	mux.Handle("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", metrics)
	mux.HandleFunc("POST /v1development/profiles", r.post)
	mux.HandleFunc("POST /v1/metrics", r.post)
	r.server = &http.Server{Handler: counting(mux), ErrorLog: log.New(io.Discard, "", 0), TLSConfig: config, Protocols: new(http.Protocols)}
	r.server.Protocols.SetHTTP1(true)
	r.server.Protocols.SetHTTP2(true)
	r.server.Protocols.SetUnencryptedHTTP2(true)
	if config != nil {
		go r.server.ServeTLS(listener, "", "")
	} else {
		go r.server.Serve(listener)
	}
	return r, nil
}

// counted is the body of a request that counts what is read of it.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

type countKey struct{}

func counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := new(atomic.Int64)
		r.Body = counted{r.Body, n}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), countKey{}, n)))
	})
}

func bytesOf(ctx context.Context) int64 {
	n, ok := ctx.Value(countKey{}).(*atomic.Int64)
	if !ok {
		return 0
	}
	return n.Load()
}

// Address is HOST:PORT.
func (r *Receiver) Address() string { return r.listener.Addr().String() }

// Close breaks off every connection.
func (r *Receiver) Close() error { return r.server.Close() }

// Requests are all that came; Taken those that were taken.
func (r *Receiver) Requests() []*Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Request(nil), r.requests...)
}

// Taken are the requests that were not refused.
func (r *Receiver) Taken() []*Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Request(nil), r.taken...)
}

// take decides on a request.
func (r *Receiver) take(q *Request) Reply {
	q.At = time.Now()
	r.mu.Lock()
	r.requests = append(r.requests, q)
	r.mu.Unlock()
	var reply Reply
	if r.answer != nil {
		reply = r.answer(q)
	}
	time.Sleep(reply.Delay)
	refused := reply.Abort || reply.Code != 0 && q.Protocol == "grpc" || reply.Status != 0 && q.Protocol != "grpc"
	if !refused || reply.Taken {
		r.mu.Lock()
		r.taken = append(r.taken, q)
		r.mu.Unlock()
	}
	if reply.Abort {
		panic(http.ErrAbortHandler)
	}
	return reply
}

func (reply *Reply) grpcError() error {
	if reply.Code == 0 {
		return nil
	}
	err := connect.NewError(reply.Code, errors.New(reply.Text))
	if reply.RetryAfter > 0 {
		if detail, detailErr := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(reply.RetryAfter)}); detailErr == nil {
			err.AddDetail(detail)
		}
	}
	return err
}

func (r *Receiver) callProfiles(ctx context.Context, q *connect.Request[profilespb.ExportProfilesServiceRequest]) (*connect.Response[profilespb.ExportProfilesServiceResponse], error) {
	reply := r.take(&Request{Signal: "profiles", Protocol: "grpc", Header: q.Header().Clone(), Profiles: q.Msg, Bytes: bytesOf(ctx)})
	answer := &profilespb.ExportProfilesServiceResponse{}
	if reply.Rejected > 0 || reply.Text != "" {
		answer.PartialSuccess = &profilespb.ExportProfilesPartialSuccess{RejectedProfiles: reply.Rejected, ErrorMessage: reply.Text}
	}
	if err := reply.grpcError(); err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

func (r *Receiver) callMetrics(ctx context.Context, q *connect.Request[metricspb.ExportMetricsServiceRequest]) (*connect.Response[metricspb.ExportMetricsServiceResponse], error) {
	reply := r.take(&Request{Signal: "metrics", Protocol: "grpc", Header: q.Header().Clone(), Metrics: q.Msg, Bytes: bytesOf(ctx)})
	if err := reply.grpcError(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&metricspb.ExportMetricsServiceResponse{}), nil
}

func (r *Receiver) post(w http.ResponseWriter, request *http.Request) {
	body := request.Body
	if request.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(request.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	data, err := io.ReadAll(body)
	q := &Request{Protocol: "http/protobuf", Header: request.Header.Clone()}
	var answer proto.Message
	var partial func(Reply)
	if err == nil {
		switch request.URL.Path {
		case "/v1/metrics":
			q.Signal, q.Metrics, answer = "metrics", &metricspb.ExportMetricsServiceRequest{}, &metricspb.ExportMetricsServiceResponse{}
			err = proto.Unmarshal(data, q.Metrics)
		default:
			a := &profilespb.ExportProfilesServiceResponse{}
			q.Signal, q.Profiles, answer = "profiles", &profilespb.ExportProfilesServiceRequest{}, a
			partial = func(reply Reply) {
				a.PartialSuccess = &profilespb.ExportProfilesPartialSuccess{RejectedProfiles: reply.Rejected, ErrorMessage: reply.Text}
			}
			err = proto.Unmarshal(data, q.Profiles)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q.Bytes = bytesOf(request.Context())
	reply := r.take(q)
	if reply.Status != 0 {
		if reply.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(reply.RetryAfter/time.Second)))
		}
		http.Error(w, reply.Text, reply.Status)
		return
	}
	if partial != nil && (reply.Rejected > 0 || reply.Text != "") {
		partial(reply)
	}
	text, err := proto.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(text)
}
