package destination

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/destination/receiver"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/queue"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

var protocols = []string{GRPC, HTTP}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func receive(t *testing.T, answer func(*receiver.Request) receiver.Reply) *receiver.Receiver {
	t.Helper()
	r, err := receiver.Start("127.0.0.1:0", nil, answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func start(t *testing.T, o Options) (*Destination, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	if o.Signal == "" {
		o.Signal = Profiles
	}
	d, err := Start(o, queue.Options{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, log
}

// profileOf is a message that names itself.
func profileOf(name string) []byte {
	b, err := proto.Marshal(&profilespb.ProfilesData{
		ResourceProfiles: []*profilespb.ResourceProfiles{{Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			{Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: name}}},
		}}}},
		Dictionary: &profilespb.ProfilesDictionary{},
	})
	if err != nil {
		panic(err)
	}
	return b
}

func nameOf(r *receiver.Request) string {
	return r.Profiles.ResourceProfiles[0].Resource.Attributes[0].Value.GetStringValue()
}

func put(t *testing.T, d *Destination, name string) {
	t.Helper()
	now := time.Now()
	if err := d.Put(queue.Header{Samples: 10, Items: 2, Start: now, End: now}, NewMessage(profileOf(name))); err != nil {
		t.Fatal(err)
	}
}

// settled waits until nothing waits.
func settled(t *testing.T, d *Destination, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	d.Flush(ctx)
	if s := d.Stats(); s.Queue.PendingBatches > 0 {
		t.Fatalf("still waiting: %+v", s)
	}
}

func TestDelivers(t *testing.T) {
	for _, protocol := range protocols {
		for _, compression := range []string{"", Gzip} {
			t.Run(protocol+compression, func(t *testing.T) {
				r := receive(t, nil)
				d, log := start(t, Options{
					Endpoint: "http://" + r.Address(), Protocol: protocol, Compression: compression, Version: "1.2.3",
					Headers: map[string]string{"authorization": "Bearer secret-token", "x-tenant": "a b"},
				})
				for i := range 5 {
					put(t, d, fmt.Sprint("message ", i))
				}
				settled(t, d, 5*time.Second)
				taken := r.Taken()
				if len(taken) != 5 {
					t.Fatalf("%d messages were taken, want 5\n%s", len(taken), log)
				}
				for i, q := range taken {
					if got, want := nameOf(q), fmt.Sprint("message ", i); got != want || q.Protocol != protocol {
						t.Errorf("message %d is %q by %s", i, got, q.Protocol)
					}
				}
				h := taken[0].Header
				if h.Get("Authorization") != "Bearer secret-token" || h.Get("X-Tenant") != "a b" || h.Get("User-Agent") != "Pilotlight-OTLP/1.2.3" {
					t.Errorf("headers: %v", h)
				}
				if h.Get("Otlp-Profiles-Development-Version") != "1" {
					t.Error("the version of the signal is not named")
				}
				encoding := h.Get("Content-Encoding") + h.Get("Grpc-Encoding")
				if encoding != compression {
					t.Errorf("sent as %q", encoding)
				}
				if s := d.Stats(); s.Sent != 5 || s.Queue.Delivered != 50 || s.SentBytes == 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// What a receiver refuses, and what becomes of the message: taken at the second try, or dropped after so many.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply receiver.Reply
		again bool // tried again until it is taken
		tries int  // where not
	}{
		{"401", receiver.Reply{Status: 401, Code: connect.CodeUnauthenticated}, true, 0},
		{"404", receiver.Reply{Status: 404, Code: connect.CodeUnimplemented}, true, 0},
		{"429", receiver.Reply{Status: 429, Code: connect.CodeResourceExhausted, RetryAfter: time.Second}, true, 0},
		{"503", receiver.Reply{Status: 503, Code: connect.CodeUnavailable}, true, 0},
		{"broken off", receiver.Reply{Abort: true}, true, 0},
		{"413", receiver.Reply{Status: 413, Code: connect.CodeResourceExhausted}, false, 1},
		{"400", receiver.Reply{Status: 400, Code: connect.CodeInvalidArgument}, false, 1},
		{"500", receiver.Reply{Status: 500, Code: connect.CodeInternal}, false, maxTries},
	} {
		for _, protocol := range protocols {
			t.Run(c.name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				var number atomic.Int32
				r := receive(t, func(q *receiver.Request) receiver.Reply {
					if nameOf(q) == "bad" && (!c.again || number.Add(1) == 1) {
						reply := c.reply
						reply.Text = "because of secret-token"
						return reply
					}
					return receiver.Reply{}
				})
				d, log := start(t, Options{Endpoint: "http://" + r.Address(), Protocol: protocol, Headers: map[string]string{"authorization": "Bearer secret-token"}})
				put(t, d, "bad")
				put(t, d, "good")
				settled(t, d, time.Minute)
				tries := map[string]int{}
				for _, q := range r.Requests() {
					tries[nameOf(q)]++
				}
				wantTries := c.tries
				if c.again {
					wantTries = 2
				}
				if tries["bad"] != wantTries || tries["good"] != 1 {
					t.Errorf("tries: %v, want %d\n%s", tries, wantTries, log)
				}
				s := d.Stats()
				if dropped := s.Queue.Dropped[queue.DropRefused]; c.again != (dropped == 0) || s.Queue.Delivered+dropped != 20 {
					t.Errorf("%+v", s)
				}
				if !strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "secret-token") {
					t.Errorf("the log says nothing, or what is secret:\n%s", log)
				}
			})
		}
	}
}

// The pause that a receiver asks for is kept.
func TestRetryAfter(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			var number atomic.Int32
			r := receive(t, func(*receiver.Request) receiver.Reply {
				if number.Add(1) == 1 {
					return receiver.Reply{Status: 429, Code: connect.CodeResourceExhausted, RetryAfter: 3 * time.Second}
				}
				return receiver.Reply{}
			})
			d, _ := start(t, Options{Endpoint: "http://" + r.Address(), Protocol: protocol})
			put(t, d, "x")
			settled(t, d, time.Minute)
			all := r.Requests()
			if len(all) != 2 {
				t.Fatalf("%d requests", len(all))
			}
			if pause := all[1].At.Sub(all[0].At); pause < 3*time.Second {
				t.Errorf("came again after %s, asked for 3s", pause)
			}
		})
	}
}

func TestPartialSuccess(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			rejected := int64(1)
			r := receive(t, func(*receiver.Request) receiver.Reply {
				rejected++
				return receiver.Reply{Rejected: rejected - 1, Text: "too old"}
			})
			d, log := start(t, Options{Endpoint: "http://" + r.Address(), Protocol: protocol})
			put(t, d, "half")
			put(t, d, "nothing of it")
			settled(t, d, 5*time.Second)
			s := d.Stats()
			if s.Rejected != 3 || s.Queue.Partial != 10 || s.Queue.Dropped[queue.DropRefused] != 10 || s.Queue.Delivered != 0 {
				t.Errorf("%+v", s)
			}
			if !strings.Contains(log.String(), "too old") {
				t.Errorf("nothing is said of it:\n%s", log)
			}
		})
	}
}

// A receiver that takes the connection and never answers costs one try, and no more than the time limit.
func TestNoAnswer(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := listener.Addr().String()
			held := make(chan net.Conn, 100)
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					held <- c // neither read nor closed
				}
			}()
			d, log := start(t, Options{Endpoint: "http://" + address, Protocol: protocol, Timeout: time.Second})
			put(t, d, "x")
			time.Sleep(2500 * time.Millisecond)
			if s := d.Stats(); s.Failures["timeout"] < 1 || s.Queue.PendingBatches != 1 {
				t.Errorf("%+v\n%s", s, log)
			}
			listener.Close()
			r, err := receiver.Start(address, nil, nil) // it comes back, while the old connection still hangs
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			settled(t, d, 20*time.Second)
			if n := len(r.Taken()); n != 1 {
				t.Errorf("%d messages were taken", n)
			}
		})
	}
}

// certificates makes an authority, and what it vouches for: a receiver at 127.0.0.1 and a client.
func certificates(t *testing.T) (dir string, server tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: i == 0, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if name == "server" {
			template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		if i == 0 {
			authority, authorityKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", keyDER)
	}
	server, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	return dir, server, pool
}

func TestTLS(t *testing.T) {
	dir, server, pool := certificates(t)
	otherDir, _, _ := certificates(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	r, err := receiver.Start("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, port, err := net.SplitHostPort(r.Address())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    Options
		err  string // "": it is taken
	}{
		{"both", Options{CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}, ""},
		{"no client certificate", Options{CAFile: file("ca.pem")}, "certificate"},
		{"system's authorities", Options{CertFile: file("client.pem"), KeyFile: file("client.key")}, "unknown authority"},
		{"another authority", Options{CAFile: filepath.Join(otherDir, "ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}, "unknown authority"},
		{"another name", Options{Endpoint: "https://localhost:" + port, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}, "localhost"},
		{"no TLS", Options{Endpoint: "http://" + r.Address()}, ""},
	} {
		for _, protocol := range protocols {
			t.Run(c.name+" "+protocol, func(t *testing.T) {
				o := c.o
				o.Signal, o.Protocol = Profiles, protocol
				if o.Endpoint == "" {
					o.Endpoint = r.Address() // without a scheme it is TLS
				}
				client, err := NewClient(o)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				before := len(r.Taken())
				_, err = client.Send(t.Context(), profileOf("x"), "")
				var e *Error
				switch {
				case c.name == "no TLS":
					if !errors.As(err, &e) {
						t.Errorf("got %v", err)
					}
				case c.err == "" && (err != nil || len(r.Taken()) != before+1):
					t.Errorf("not taken: %v", err)
				case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || len(r.Taken()) != before):
					t.Errorf("got %v, want %q", err, c.err)
				}
			})
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // where it goes, or what is wrong
	}{
		{Options{Endpoint: "http://h:4317"}, "http://h:4317" + procedures[Profiles]},
		{Options{Endpoint: "h:4317"}, "https://h:4317" + procedures[Profiles]},
		{Options{Endpoint: "h:4317", Insecure: true}, "http://h:4317" + procedures[Profiles]},
		{Options{Endpoint: "https://h", Protocol: HTTP}, "https://h/v1development/profiles"},
		{Options{Endpoint: "https://h/otlp/", Protocol: HTTP}, "https://h/otlp/v1development/profiles"},
		{Options{Endpoint: "https://h/all", Protocol: HTTP, Exact: true}, "https://h/all"},
		{Options{Endpoint: "https://h", Protocol: HTTP, Exact: true}, "https://h/"},
		{Options{Endpoint: "https://h:4318", Protocol: HTTP, Signal: Metrics}, "https://h:4318/v1/metrics"},
		{Options{Endpoint: "ftp://h"}, "want http(s)://HOST:PORT"},
		{Options{Endpoint: ""}, "want http(s)://HOST:PORT"},
		{Options{Endpoint: "http://user:secret@h"}, "without user and password"},
		{Options{Endpoint: "http://h", Protocol: "http/json"}, "want grpc or http/protobuf"},
		{Options{Endpoint: "http://h", Compression: "lz4"}, "want gzip, zstd or none"},
		{Options{Endpoint: "http://h", CertFile: "x"}, "want both or none"},
		{Options{Endpoint: "http://h", Headers: map[string]string{"a b": "secret"}}, "no name of a header"},
		{Options{Endpoint: "http://h", Headers: map[string]string{"a": "secret\n"}}, "what no header may"},
		{Options{Endpoint: "http://h", Headers: map[string]string{"content-type": "secret"}}, "the protocol sets it itself"},
	} {
		if c.o.Signal == "" {
			c.o.Signal = Profiles
		}
		got := ""
		if err := c.o.Check(); err != nil {
			got = err.Error()
		} else if u, err := c.o.url(); err == nil {
			got = u.String()
		}
		if !strings.Contains(got, c.want) || strings.Contains(got, "secret") {
			t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
		}
	}
}

func TestParseHeaders(t *testing.T) {
	got, err := ParseHeaders("authorization=Bearer%20abc, x-a = b=c ,")
	if err != nil || len(got) != 2 || got["authorization"] != "Bearer abc" || got["x-a"] != "b=c" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"secret", "a=%secret"} {
		if _, err := ParseHeaders(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever a receiver answers, it is read without a panic.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte{10, 5, 8, 2, 18, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a := parseAnswer(b); a.Rejected < 0 || len(a.Message) > len(b) {
			t.Errorf("%+v", a)
		}
	})
}

// A trial tells what is wrong, and where the receiver is that was meant.
func TestTry(t *testing.T) {
	r := receive(t, func(q *receiver.Request) receiver.Reply {
		if q.Header.Get("Authorization") != "Bearer secret-token" {
			return receiver.Reply{Status: 401, Code: connect.CodeUnauthenticated, Text: "who are you?"}
		}
		return receiver.Reply{}
	})
	headers := map[string]string{"authorization": "Bearer secret-token"}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name   string
		o      Options
		remedy string // "": it is taken
	}{
		{"right", Options{Endpoint: "http://" + r.Address(), Headers: headers}, ""},
		{"right http", Options{Endpoint: "http://" + r.Address(), Protocol: HTTP, Headers: headers}, ""},
		{"metrics", Options{Endpoint: "http://" + r.Address(), Signal: Metrics, Headers: headers}, ""},
		{"no credentials", Options{Endpoint: "http://" + r.Address()}, "--otlp-headers"},
		{"path", Options{Endpoint: "http://" + r.Address() + "/else", Protocol: HTTP, Headers: headers}, "give --otlp-endpoint http://" + r.Address()},
		{"nothing there", Options{Endpoint: "http://127.0.0.1:1"}, "nothing listens there"},
		{"silent", Options{Endpoint: "http://" + silent.Addr().String(), Timeout: 200 * time.Millisecond}, "firewall"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.o.Signal == "" {
				c.o.Signal = Profiles
			}
			trial := Try(t.Context(), c.o)
			if trial.Taken != (c.remedy == "") || !strings.Contains(trial.Remedy, c.remedy) {
				t.Errorf("%+v", trial)
			}
			if strings.Contains(fmt.Sprintf("%+v", trial), "secret-token") {
				t.Errorf("it tells the secret: %+v", trial)
			}
		})
	}
	last := r.Taken()[0].Profiles
	if p := last.ResourceProfiles[0].ScopeProfiles[0].Profiles[0]; p.Samples[0].Values[0] != TrialSamples {
		t.Errorf("a test profile of %v", p.Samples)
	}
}

// A proxy before a receiver of gRPC answers in HTTP alone.
func TestNoGRPC(t *testing.T) {
	for status, verdict := range map[int]Verdict{401: Later, 413: Never, 500: Doubtful, 503: Later} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too much", status) }))
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		client, err := NewClient(Options{Signal: Profiles, Endpoint: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Send(t.Context(), profileOf("x"), "")
		var e *Error
		if !errors.As(err, &e) || e.Verdict != verdict || e.Code != fmt.Sprintf("HTTP %d", status) {
			t.Errorf("HTTP %d: %+v", status, err)
		}
		client.Close()
		server.Close()
	}
}

// One secret may begin with another, and be told in another form.
func TestClean(t *testing.T) {
	for range 30 { // maps have no order
		c := &Client{secrets: secretsOf(map[string]string{"x-scope": "12345", "authorization": "Bearer 12345:supersecret", "other": "Basic dXNlcjpwYXNzd29yZA=="})}
		text := c.clean("no 12345:supersecret, 12345, dXNlcjpwYXNzd29yZA==, user:password, password for Bearer 12345:supersecret")
		for _, secret := range []string{"supersecret", "12345", "dXNl", "password"} {
			if strings.Contains(text, secret) {
				t.Fatalf("%q tells %q", text, secret)
			}
		}
	}
}

// Where the certificate is wrong nobody else is asked, and no way without TLS is recommended.
func TestTryCertificate(t *testing.T) {
	_, server, _ := certificates(t)
	r, err := receiver.Start("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	trial := Try(t.Context(), Options{Signal: Profiles, Endpoint: "https://" + r.Address()})
	if trial.Taken || !strings.Contains(trial.Remedy, "--otlp-certificate") {
		t.Errorf("%+v", trial)
	}
}

// Each of several receivers gets all of a profile, whatever it speaks, and one that is away costs the other nothing.
func TestSeveral(t *testing.T) {
	one, two := receive(t, nil), receive(t, nil)
	var to []*Destination
	for _, o := range []Options{
		{Endpoint: "http://" + one.Address(), Compression: Gzip}, {Endpoint: "http://" + two.Address(), Protocol: HTTP}, {Endpoint: "http://127.0.0.1:1"},
	} {
		d, _ := start(t, o)
		to = append(to, d)
	}
	encoder, err := otlp.NewEncoder(otlp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stack := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "f"}}}}}}
	NewProfileExporter(encoder, to, slog.New(slog.DiscardHandler)).Export(&profile.Profile{
		Type: profile.TypeCPU, Period: 7, Start: time.Now(), Duration: time.Second,
		Samples: []profile.Sample{{User: stack, Labels: &profile.Labels{PID: 1, Comm: "a"}, Count: 3, Value: 21}, {User: stack, Labels: &profile.Labels{PID: 2, Comm: "b"}, Count: 4, Value: 28}},
		Account: profile.Account{Taken: 7, Exported: 7},
	})
	for i, r := range []*receiver.Receiver{one, two} {
		settled(t, to[i], 5*time.Second)
		var samples int64
		for _, q := range r.Taken() {
			for _, resource := range q.Profiles.ResourceProfiles {
				samples += resource.ScopeProfiles[0].Profiles[0].Samples[0].Values[0]
			}
		}
		if s := to[i].Stats(); samples != 7 || s.Queue.Delivered != 7 {
			t.Errorf("receiver %d got %d samples: %+v", i, samples, s)
		}
	}
	if s := to[2].Stats(); s.Queue.Pending != 7 || s.Queue.Collected != 7 {
		t.Errorf("of the one that is away: %+v", s)
	}
}
