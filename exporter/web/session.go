package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// sessionTime is how long a browser that gave the token is let in.
const sessionTime = 7 * 24 * time.Hour

// A session is the time when it ends, in Unix seconds, and a signature of that, which the token alone can make:
//
//	1767225600.9f86d081884c7d65...
//
// Nothing is kept of it. It outlives the agent's restart, and ends with the token.
func (g *guard) newSession(end time.Time) string {
	text := strconv.FormatInt(end.Unix(), 10)
	return text + "." + hex.EncodeToString(g.sign(text))
}

func (g *guard) sign(text string) []byte {
	mac := hmac.New(sha256.New, g.token[:])
	mac.Write([]byte("pilotlight session " + text))
	return mac.Sum(nil)
}

func (g *guard) carriesSession(r *http.Request) bool {
	for _, cookie := range r.CookiesNamed(cookieName(r)) {
		text, signature, _ := strings.Cut(cookie.Value, ".")
		given, err := hex.DecodeString(signature)
		if err != nil || !hmac.Equal(given, g.sign(text)) {
			continue
		}
		if end, err := strconv.ParseInt(text, 10, 64); err == nil && time.Now().Unix() < end {
			return true
		}
	}
	return false
}

// cookieName holds the port: cookies belong to a host, and there may be several agents.
func cookieName(r *http.Request) string {
	port := ""
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		_, port, _ = net.SplitHostPort(local.String())
	}
	return "pilotlight-" + port
}

// session gives a browser that carries the token a cookie in its place. No script can read it, no other site can use it.
func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	if s.guard.token != nil && s.guard.carriesToken(r) {
		http.SetCookie(w, &http.Cookie{
			Name: cookieName(r), Value: s.guard.newSession(time.Now().Add(sessionTime)), Path: "/", MaxAge: int(sessionTime.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: s.tls != nil,
		})
	}
	w.WriteHeader(http.StatusNoContent)
}

// askToken sends the page that asks for the token.
func askToken(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(assetFiles()["static/login.html"].plain) // a client that went away is its own business
}
