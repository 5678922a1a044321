// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// buildPrometheus builds Prometheus, which the folder prometheus names by its version.
func buildPrometheus(t *testing.T) string {
	t.Helper()
	path := filepath.Join(folder, "prometheus")
	// Without the discovery of targets in clouds, which is most of it.
	cmd := exec.Command("go", "build", "-tags", "remove_all_sd", "-o", path, "github.com/prometheus/prometheus/cmd/prometheus")
	cmd.Dir, cmd.Env = "prometheus", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build Prometheus: %v\n%s", err, out)
	}
	return path
}

// A real Prometheus scrapes the agent, and is sent the same by OTLP: queries give the same numbers, those of the agent, and CPU time as the program itself counts it.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	binary, address := buildPrometheus(t), freeAddress(t)
	w := start(t, build(t, "split"), "120")
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--otlp-metrics-endpoint", "http://"+address+"/api/v1/otlp/v1/metrics",
		"--otlp-metrics-protocol", "http/protobuf", "--otlp-metrics-interval", "1s")
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	target, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("scrape_configs:\n- job_name: scraped\n  scrape_interval: 1s\n  static_configs: [{targets: [%q]}]\n", target.Host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	prometheus := exec.Command(binary, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address, "--web.enable-otlp-receiver")
	prometheus.Stdout, prometheus.Stderr = log, log
	prometheus.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = prometheus.Process.Kill()
		_ = prometheus.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Prometheus said:\n%.4000s", text)
		}
	})
	query := func(q string) (value float64, ok bool) {
		answer, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			return 0, false
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return 0, false
		}
		var reply struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if json.Unmarshal(body, &reply) != nil || len(reply.Data.Result) != 1 {
			return 0, false
		}
		value, err = strconv.ParseFloat(fmt.Sprint(reply.Data.Result[0].Value[1]), 64)
		return value, err == nil
	}
	const cpu = `pilotlight_service_cpu_seconds_total{service="split",job=%q}`
	waitFor(t, "an interval at Prometheus, scraped and sent", func() bool {
		scraped, ok := query(fmt.Sprintf(cpu, "scraped"))
		sent, also := query(fmt.Sprintf(cpu, "pilotlight"))
		return ok && also && scraped > 5 && sent > 5
	})
	// The counts of the same moment: these stand still between intervals.
	var agent, scraped, sent float64
	same := false
	for end := time.Now().Add(hang); !same && time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		agent = a.metrics(t)["pilotlight_service_cpu_seconds_total"] // of the one service that there is
		scraped, _ = query(fmt.Sprintf(cpu, "scraped"))
		sent, _ = query(fmt.Sprintf(cpu, "pilotlight"))
		same = agent == scraped && agent == sent
	}
	exported := a.metrics(t)["pilotlight_samples_exported_total"]
	t.Logf("CPU time of the service: the agent %.2f s, scraped %.2f s, sent %.2f s; %.0f samples", agent, scraped, sent, exported)
	if !same {
		t.Error("Prometheus has other numbers than the agent")
	}
	if math.Abs(agent-exported/97) > agent/50 {
		t.Errorf("%.2f s of CPU time are not %.0f samples at 97 Hz", agent, exported)
	}
	for _, job := range []string{"scraped", "pilotlight"} {
		q := fmt.Sprintf("sum(pilotlight_function_cpu_seconds_total{job=%q,function=~\"burn_[abc]\"}) / scalar("+cpu+")", job, job)
		if share, ok := query(q); !ok || share < 0.9 || share > 1.01 {
			t.Errorf("%s gives %v, %t: three functions take nearly all of the time", q, share, ok)
		}
	}
}
