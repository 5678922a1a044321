// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/destination/receiver"
)

// Secrets that were planted, in headers of OTLP and in the environment of a sampled process, are nowhere: not in logs and errors, with a receiver that repeats the header it refuses, not in
// profiles, metrics, the history or the queue.
func TestSecrets(t *testing.T) {
	const token, encoded, variable, listed = "planted-token-8f3a", "cGxhbnRlZC1iYXNpYy04ZjNh", "planted-variable-8f3a", "planted-password-8f3a"
	var refused atomic.Int32
	answer := func(q *receiver.Request) receiver.Reply {
		if refused.Add(1) <= 3 {
			text := "no access for " + q.Header.Get("Authorization") + " and " + q.Header.Get("X-Key")
			return receiver.Reply{Status: 401, Code: connect.CodeUnauthenticated, Text: text}
		}
		return receiver.Reply{Text: "a warning for " + q.Header.Get("X-Key")}
	}
	r, err := receiver.Start("127.0.0.1:0", nil, answer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(build(t, "split"), "120")
	cmd.Env = append(os.Environ(), "SOME_PASSWORD="+variable, "OTEL_EXPORTER_OTLP_HEADERS=authorization="+listed, "OTEL_SERVICE_NAME=shop")
	w := startCommand(t, cmd)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", fmt.Sprintf("authorization=Basic%%20%s,x-key=%s", encoded, token))
	a := startAgent(t, "-v", "-p", strconv.Itoa(w.pid()), "--otlp-endpoint", "http://"+r.Address(), "--otlp-metrics-interval", "1s")
	waitFor(t, "profiles and metrics arrive", func() bool {
		signals := make(map[string]bool)
		for _, q := range r.Taken() {
			signals[q.Signal] = true
		}
		return len(signals) == 2
	})
	time.Sleep(2 * time.Second)
	found := map[string][]byte{}
	for _, path := range []string{"/metrics", "/debug/pprof/profile?seconds=1", "/api/v1/status", "/"} {
		_, body := a.get(t, path)
		found[path] = []byte(body)
	}
	for i, q := range r.Taken() {
		var m proto.Message = q.Metrics
		if q.Profiles != nil {
			m = q.Profiles
		}
		text, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		found[fmt.Sprintf("%s message %d", q.Signal, i)] = text
	}
	if code, _ := a.terminate(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	found["log"] = []byte(a.said())
	err = filepath.WalkDir(a.dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"doctor", "otlp", "--otlp-endpoint", "http://" + r.Address()},
		{"doctor", "otlp", "--otlp-endpoint", "https://" + r.Address()},
		{"agent", "--otlp-endpoint", "nonsense://" + r.Address()},
		{"agent", "--otlp-endpoint", "http://x", "--otlp-headers", token},
	} {
		refused.Store(0)
		result := run(t, args...)
		found[strings.Join(args, " ")] = []byte(result.stdout + result.stderr)
	}
	for where, text := range found {
		for _, secret := range []string{token, encoded, variable, listed} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds the secret %q:\n%.600s", where, secret, text)
			}
		}
	}
	if !strings.Contains(a.said(), "no access for") || !strings.Contains(a.said(), "a warning for") {
		t.Errorf("the receiver's words are not in the log at all:\n%s", a.said())
	}
	if len(found) < 10 {
		t.Errorf("looked at %d places only", len(found))
	}
}
