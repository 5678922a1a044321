// Package openapi validates what a running agent answers against the
// description of its API that it serves. It is a module of its own: the
// validator is a dependency of this test alone. Needs root.
package openapi

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// hang is how long something may take that takes a second or ten.
const hang = time.Minute

func start(t *testing.T, name string, args ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(name, args...)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd, pipe
}

// startAgent samples one busy process, and waits until its history has an interval.
func startAgent(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "pilotlight")
	build := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/pilotlight")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	busy, _ := start(t, "sh", "-c", "while :; do :; done")
	_, stderr := start(t, binary, "agent", "-p", strconv.Itoa(busy.Process.Pid), "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"))
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok {
			url = strings.Fields(address)[0]
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(dir, "data/v1/samples/*/*/*/*.parquet")); len(files) > 0 {
			return url
		}
	}
	t.Fatal("the history has no interval")
	return ""
}

func TestAnswersAreAsDescribed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("sampling needs root")
	}
	url := startAgent(t)
	description, err := http.Get(url + "/api/v1/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer description.Body.Close()
	text, err := io.ReadAll(description.Body)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(map[string]bool)
	for path, status := range map[string]int{
		"/api/v1/status": 200,
		"/api/v1/profile?from=-5m&filter=comm%3D%22sh%22": 200,
		"/api/v1/tree?from=-5m&to=now":                    200,
		"/api/v1/tree?by=comm&limit=1":                    200,
		"/api/v1/top?from=-5m":                            200,
		"/api/v1/top?comm=none":                           200,
		"/api/v1/callers?function=main":                   200,
		"/api/v1/series?by=comm&step=1s":                  200,
		"/api/v1/heatmap?from=-1m":                        200,
		"/api/v1/labels?by=pid":                           200,
		"/api/v1/diff?from=-10s&scale=share":              200,
		"/api/v1/difftree?from=-10s&limit=5":              200,
		"/api/v1/processes?live=true":                     200,
		"/api/v1/reasons":                                 200,
		"/api/v1/session":                                 204,
		"/api/v1/tree?live=true":                          200,
		"/api/v1/heatmap?live=true&step=50ms":             200,
		"/api/v1/labels":                                  400,
		"/api/v1/tree?from=yesterday":                     400,
	} {
		request, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != status {
			t.Errorf("%s: %d, %v: %.300s", path, response.StatusCode, err, body)
			continue
		}
		request.URL.Scheme, request.URL.Host, request.Host = "", "", ""
		route, parameters, err := router.FindRoute(request)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		asked[route.Path] = true
		input := &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route}
		if status == http.StatusOK {
			if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
				t.Errorf("%s: the request: %v", path, err)
			}
		}
		if strings.HasPrefix(path, "/api/v1/profile") {
			if !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
				t.Errorf("%s: not gzip: %.20q", path, body)
			}
			continue // the validator knows no such content
		}
		answer := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: status, Header: response.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}
		if err := openapi3filter.ValidateResponse(context.Background(), answer.SetBodyBytes(body)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path := range doc.Paths.Map() {
		if !asked[path] {
			t.Errorf("%s is described, and was not asked", path)
		}
	}
}
