package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
)

// Security says who may ask. The zero value is plain HTTP for the host itself.
type Security struct {
	// TokenFile holds the secret that every request must carry, but for those to /healthz, /readyz and files that are
	// the same for everyone: "Authorization: Bearer TOKEN", or as the password of a URL (http://pilotlight:TOKEN@host:7070), which is
	// what go tool pprof can send. A browser is asked for it once, and carries a cookie from then on.
	TokenFile string
	// CertFile and KeyFile (PEM) switch to HTTPS.
	CertFile, KeyFile string
	// InsecureListen lets anyone who reaches the address read the host's profiles.
	InsecureListen bool
}

// minTokenBytes is a bound against tokens that can be guessed.
const minTokenBytes = 16

// CheckListen refuses an address that others can reach, unless TLS, a token or the flag that names
// the risk is given. It looks at the address alone and opens nothing.
func CheckListen(addr string, s Security) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return fmt.Errorf("listen address %q: give HOST:PORT, such as 127.0.0.1:7070", addr)
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		return errors.New("TLS needs both a certificate and its key: give --tls-cert and --tls-key")
	}
	if isLoopback(host) || s.InsecureListen || s.TokenFile != "" || s.CertFile != "" {
		return nil
	}
	return fmt.Errorf("listen address %q can be reached from other machines, and profiles tell what runs here: "+
		"listen on 127.0.0.1, or give --token-file FILE, or --tls-cert FILE and --tls-key FILE, "+
		"or --insecure-listen to let anyone read them", addr)
}

// isLoopback takes localhost to be what it is everywhere; other names are not looked up.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (s Security) tlsConfig() (*tls.Config, error) {
	if s.CertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the TLS certificate %s and key %s: %w", s.CertFile, s.KeyFile, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, nil
}

// token is the hash of the secret; comparing hashes gives away no length. Nil: everyone may ask.
func (s Security) token() (*[sha256.Size]byte, error) {
	if s.TokenFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minTokenBytes {
		return nil, fmt.Errorf("the token in %s is shorter than %d bytes; make one with: openssl rand -hex 32", s.TokenFile, minTokenBytes)
	}
	sum := sha256.Sum256([]byte(token))
	return &sum, nil
}

// Risk says what is at stake in what CheckListen lets pass; "" where nothing is.
func Risk(addr string, s Security) string {
	host, _, err := net.SplitHostPort(addr)
	switch {
	case err != nil || isLoopback(host):
		return ""
	case s.TokenFile == "":
		return "everyone who reaches " + addr + " can read every profile: give --token-file FILE"
	case s.CertFile == "":
		return "the token and the profiles cross the network in clear text: give --tls-cert FILE and --tls-key FILE"
	}
	return ""
}

// guard refuses requests that should not be answered, before anything looks at them.
type guard struct {
	hosts map[string]bool // names that requests may use beside loopback ones, in lower case
	token *[sha256.Size]byte
}

func newGuard(o Options) (*guard, error) {
	g := &guard{hosts: make(map[string]bool)}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address: %w", err)
	}
	for _, name := range append([]string{host}, o.Hosts...) {
		if name != "" {
			g.hosts[strings.ToLower(name)] = true
		}
	}
	g.token, err = o.Security.token()
	return g, err
}

// contentPolicy lets pages load what this server serves, and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // frame-ancestors for browsers that do not know it
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// The server reads what is left of a body before it takes the next request. It must not wait for it.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
		}
		switch {
		case !g.allowsHost(r):
			http.Error(w, "this agent does not answer for the host "+query.Quote(r.Host)+
				": use localhost, a loopback address or the address it listens on", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are answered", http.StatusMethodNotAllowed)
		case r.ContentLength != 0:
			http.Error(w, "requests with a body are not answered", http.StatusBadRequest)
		case !allowsOrigin(r):
			http.Error(w, "pages of other sites are not answered", http.StatusForbidden)
		case !g.allowsClient(r):
			// No Basic: browsers would ask for name and password in a window of their own.
			h.Set("WWW-Authenticate", `Bearer realm="pilotlight"`)
			if strings.Contains(r.Header.Get("Accept"), "text/html") {
				askToken(w)
				return
			}
			http.Error(w, `this agent wants its token: send "Authorization: Bearer TOKEN", or the token as password`, http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// allowsHost keeps out requests by a name that somebody else made point here (DNS rebinding): a page
// of that name could read the answers. An address cannot be made to point elsewhere, so the one that
// the request reached is fine, which is what listening on all addresses needs.
func (g *guard) allowsHost(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if isLoopback(host) || g.hosts[strings.ToLower(host)] {
		return true
	}
	addr, err := netip.ParseAddr(host)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if err != nil || local == nil {
		return false
	}
	reached, err := netip.ParseAddrPort(local.String())
	return err == nil && addr.Unmap().WithZone("") == reached.Addr().Unmap().WithZone("")
}

// allowsOrigin keeps out what pages of other origins ask for. They cannot read the answers, but they could keep the agent busy, or make the reader
// save a file. Links on them to this server's pages may be followed, by the reader and not in a frame. A page on another port of this host is of the same site, and
// another origin.
//
// Browsers say of which site a request is to loopback and by HTTPS alone. By plain HTTP from elsewhere a page of another origin that loads an image from here looks as this
// server's own does. The cookie of a session is not sent from other sites then (SameSite), but it is from other ports of the host; of what they ask for they read nothing.
func allowsOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		_, host, ok := strings.Cut(origin, "://")
		return ok && strings.EqualFold(host, r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		dest := r.Header.Get("Sec-Fetch-Dest")
		return r.Header.Get("Sec-Fetch-Mode") == "navigate" && (dest == "document" || dest == "") && isPage(r.URL.Path) && r.Header.Get("Sec-Purpose") == ""
	}
	return true
}

// allowsClient checks the token. Probes carry none, and learn no more than that the agent runs; files that everybody
// can have from the repository need none.
func (g *guard) allowsClient(r *http.Request) bool {
	if g.token == nil || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || isPublic(r.URL.Path) {
		return true
	}
	return g.carriesToken(r) || g.carriesSession(r)
}

func isPage(path string) bool {
	return path == "/" || path == "/debug/pprof/" || path == "/speedscope/"
}

func isPublic(path string) bool {
	return strings.HasPrefix(path, "/static/") || strings.HasPrefix(path, "/assets/") || strings.HasPrefix(path, "/speedscope/")
}

func (g *guard) carriesToken(r *http.Request) bool {
	_, given, ok := r.BasicAuth()
	if !ok {
		scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return false
		}
		given = strings.TrimSpace(rest)
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
}
