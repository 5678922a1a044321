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

// sessionTime is how long a browser that gave the token is let in: a working day, as a cookie may reach others (see session).
const sessionTime = 12 * time.Hour

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

// cookieName holds the port that the browser asks: cookies belong to a host, and it may reach several agents by one, as by tunnels.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host) // "": that of the scheme
	return "pilotlight-" + port
}

// session gives a browser that carries the token a cookie in its place. No script can read it, and no page of another site can make use of it. But browsers send it
// to every port of the host: who runs another server there, and makes the reader open it, has the session until it ends.
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
