// Command shop is what the pictures of the page are taken of: a made-up shop that serves itself over HTTP, always the same requests at the same pace.
// Its argument is what it does: api answers requests, books adds up for a part of each second, mail writes files and packs them. After SIGUSR1 api
// signs three times as often. It ends with its standard input.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

type item struct {
	Name  string
	Price int
	Stock int
}

var (
	page   = template.Must(template.New("").Parse(`<ul>{{range .}}<li>{{.Name}} <b>{{.Price}}</b> {{if .Stock}}in stock{{end}}</li>{{end}}</ul>`))
	digits = regexp.MustCompile(`(lamp|table|chair)-(\d+)$`)
	rounds atomic.Int32 // of signing
)

func main() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends
		os.Exit(0)
	}()
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGUSR1)
	rounds.Store(1500)
	go func() {
		<-changed
		rounds.Store(4500)
	}()
	items := catalog(400)
	fmt.Println("ready")
	switch os.Args[1] {
	case "api":
		serve(items)
	case "books":
		for range time.Tick(time.Second) {
			for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
				add(items)
			}
		}
	case "mail":
		for range time.Tick(100 * time.Millisecond) {
			if err := mail(items); err != nil {
				log.Fatal(err)
			}
		}
	}
}

func catalog(n int) []item {
	random := rand.New(rand.NewPCG(1, 2))
	items := make([]item, n)
	for i := range items {
		items[i] = item{fmt.Sprintf("%s-%d", []string{"lamp", "table", "chair", "shelf"}[random.IntN(4)], i), random.IntN(1000), random.IntN(3)}
	}
	return items
}

func serve(items []item) {
	mux := http.NewServeMux()
	mux.HandleFunc("/search", func(w http.ResponseWriter, _ *http.Request) { search(w, items) })
	mux.HandleFunc("/checkout", checkout)
	server := httptest.NewServer(mux)
	order, err := json.Marshal(items[:100])
	if err != nil {
		log.Fatal(err)
	}
	n := 0
	for range time.Tick(15 * time.Millisecond) {
		n++
		path := []string{"/search", "/checkout"}[n%2]
		response, err := http.Post(server.URL+path, "application/json", bytes.NewReader(order))
		if err != nil {
			log.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
}

func search(w io.Writer, items []item) {
	var found []item
	for _, i := range items {
		if digits.MatchString(i.Name) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b item) int { return cmp.Or(cmp.Compare(a.Price, b.Price), cmp.Compare(a.Name, b.Name)) })
	_ = page.Execute(w, found)
}

func checkout(w http.ResponseWriter, r *http.Request) {
	var order []item
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var invoice bytes.Buffer
	_ = page.Execute(&invoice, order)
	packed := pack(invoice.Bytes())
	_, _ = fmt.Fprintf(w, "%x", sign(packed))
}

func pack(data []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(data)
	_ = z.Close()
	return out.Bytes()
}

func sign(data []byte) (sum [32]byte) {
	for range rounds.Load() {
		sum = sha256.Sum256(append(data, sum[:]...))
	}
	return sum
}

func add(items []item) int {
	sums := make(map[string]int)
	for _, i := range items {
		sums[fmt.Sprint(i.Name[:4], i.Stock)] += i.Price
	}
	sum := 0
	for _, s := range sums {
		sum += s
	}
	return sum
}

func mail(items []item) error {
	dir, err := os.MkdirTemp("", "shop-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for n := range 12 {
		letter, err := json.MarshalIndent(items, "", " ")
		if err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, bytes.Repeat(letter, 8), 0o600); err != nil {
			return err
		}
		if _, err := os.ReadFile(path); err != nil {
			return err
		}
		if n == 0 {
			pack(letter)
		}
	}
	return nil
}
