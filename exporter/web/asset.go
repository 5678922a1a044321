package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed assets
var assets embed.FS

// asset is a file that is the same for everyone.
type asset struct {
	plain     []byte
	zipped    func() []byte // nothing where that is not worth it
	mediaType string
	tag       string // of the content
}

// assetFiles are those that may be asked for, by their names below assets. Each is zipped when it is first asked for, as who opens the page does not wait
// for what it does not show: one build of them is in the repository, and what it is zipped by is of no matter.
var assetFiles = sync.OnceValue(func() map[string]asset {
	files := make(map[string]asset)
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		plain, err := assets.ReadFile(name)
		sum := sha256.Sum256(plain)
		a := asset{plain: plain, mediaType: cmp.Or(mediaTypes[path.Ext(name)], "text/plain; charset=utf-8"), tag: hex.EncodeToString(sum[:8])}
		a.zipped = sync.OnceValue(func() []byte {
			if zipped := zip(plain, gzip.BestCompression); len(zipped) < len(plain)*9/10 { // else it is zipped as it is
				return zipped
			}
			return nil
		})
		files[strings.TrimPrefix(name, "assets/")] = a
		return err
	})
	if err != nil {
		panic(err) // they are in the binary
	}
	return files
})

// mediaTypes do not depend on what the host knows (package mime would).
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".json": "application/json",
}

func zip(plain []byte, level int) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = w.Write(plain) // a Buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

// takesZipped says whether a client can unzip an answer.
func takesZipped(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(coding), ";")
		if name == "gzip" && strings.TrimSpace(quality) != "q=0" {
			return true
		}
	}
	return false
}

// Files with a hash in their name never change; of others a client asks whether they have.
const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheAsked   = "no-cache"
)

// files serves a directory of the assets below a path of the same name.
func files(dir, cache string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		a, ok := assetFiles()[dir+"/"+cmp.Or(name, "index.html")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.mediaType)
		h.Set("Cache-Control", cache)
		h.Set("Vary", "Accept-Encoding")
		body, tag := a.plain, a.tag
		if takesZipped(r) {
			if zipped := a.zipped(); zipped != nil {
				h.Set("Content-Encoding", "gzip")
				body, tag = zipped, tag+"-gzip"
			}
		}
		h.Set("ETag", `"`+tag+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}

// speedscopePolicy is that of a program of others: its styles are made by its script, and so inline, and its demangler is WebAssembly. What it opens it asks of this server, with
// the cookie that the reader has.
const speedscopePolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func withPolicy(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		next.ServeHTTP(w, r)
	})
}
