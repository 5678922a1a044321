// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"
)

// An agent is a running `pilotlight agent`.
type agent struct {
	cmd     *exec.Cmd
	url     string // http://127.0.0.1:PORT
	dataDir string

	mu     sync.Mutex
	stderr bytes.Buffer
	ended  chan struct{} // closed when its standard error has been read to the end
}

// startAgent starts an agent on a free port and a data directory of its own, and returns once it is ready. It is
// stopped at the end of the test.
func startAgent(t testing.TB, args ...string) *agent {
	t.Helper()
	a := &agent{dataDir: t.TempDir(), ended: make(chan struct{})}
	args = append([]string{"agent", "--listen", "127.0.0.1:0", "--data-dir", a.dataDir}, args...)
	a.cmd = exec.Command(pilotlight, args...)
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // nothing, if the test has stopped it
		<-a.ended
		_ = a.cmd.Wait()
		if t.Failed() {
			t.Logf("the agent said:\n%s", a.said())
		}
	})
	listening := make(chan string, 1)
	go func() {
		defer close(a.ended)
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			a.mu.Lock()
			a.stderr.WriteString(lines.Text() + "\n")
			a.mu.Unlock()
			if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok {
				select {
				case listening <- strings.Trim(strings.Fields(address)[0], `"`):
				default:
				}
			}
		}
	}()
	select {
	case a.url = <-listening:
	case <-a.ended:
		t.Fatalf("pilotlight %s ended:\n%s", strings.Join(args, " "), a.said())
	case <-time.After(hang):
		t.Fatalf("pilotlight %s does not listen:\n%s", strings.Join(args, " "), a.said())
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		code, body := a.get(t, "/readyz")
		if code == http.StatusOK {
			return a
		}
		if code != http.StatusServiceUnavailable || time.Now().After(deadline) {
			t.Fatalf("/readyz: %d %s", code, body) // the contract: 200 within 10 s, 503 until then
		}
	}
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

func (a *agent) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stderr.String()
}

// terminate sends SIGTERM and returns the exit status and how long the end took.
func (a *agent) terminate(t testing.TB) (code int, took time.Duration) {
	t.Helper()
	return a.end(t, syscall.SIGTERM)
}

// end is terminate with another signal.
func (a *agent) end(t testing.TB, signal syscall.Signal) (code int, took time.Duration) {
	t.Helper()
	began := time.Now()
	if err := a.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.ended:
	case <-time.After(hang):
		t.Fatalf("the agent ignores %v", signal)
	}
	_ = a.cmd.Wait()
	return exitCode(a.cmd.ProcessState), time.Since(began)
}

func (a *agent) get(t testing.TB, path string) (code int, body string) {
	t.Helper()
	client := http.Client{Timeout: hang}
	answer, err := client.Get(a.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return answer.StatusCode, string(text)
}

// collect downloads a profile.
func (a *agent) collect(t testing.TB, query string) (*profile.Profile, error) {
	t.Helper()
	code, body := a.get(t, "/debug/pprof/profile?"+query)
	if code != http.StatusOK {
		return nil, fmt.Errorf("%s: %d %s", query, code, body)
	}
	p, err := profile.ParseData([]byte(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return p, p.CheckValid()
}

// metrics reads /metrics: name, or name{labels}, to value.
func (a *agent) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	code, body := a.get(t, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", code, body)
	}
	values := map[string]float64{}
	for _, line := range strings.Split(body, "\n") {
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("/metrics: %q", line)
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		values[name+reasonLabel(labels)] += value
	}
	return values
}

// reasonLabel keeps of `otel_scope_name="x",reason="ring_full"}` only {reason="ring_full"}.
func reasonLabel(labels string) string {
	for _, pair := range strings.Split(strings.TrimSuffix(labels, "}"), ",") {
		if strings.HasPrefix(pair, "reason=") {
			return "{" + pair + "}"
		}
	}
	return ""
}

const lostPrefix = "pilotlight_samples_lost_total{reason="

// inNewCgroup puts a process into a cgroup of its own (version 2; hybrid hosts have it elsewhere) and returns its path.
func inNewCgroup(t testing.TB, pid int, below ...string) string {
	t.Helper()
	root := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	return inNewCgroupOf(t, root, pid, below...)
}

// inNewCgroupOf does so in the hierarchy that is mounted at root. Names of cgroups below one another are made below it, the process is in the last.
func inNewCgroupOf(t testing.TB, root string, pid int, below ...string) string {
	t.Helper()
	path := root
	for _, name := range append([]string{fmt.Sprintf("pilotlight-test-%d", pid)}, below...) {
		path = filepath.Join(path, name)
		made := path
		if err := os.Mkdir(made, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			// a cgroup is busy until its last process is reaped
			for range 100 {
				if os.Remove(made) == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Errorf("%s cannot be removed", made)
		})
	}
	procs := filepath.Join(path, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// Several downloads at once, each with a filter of its own, from one agent; go tool pprof reads its URL.
func TestAgentProfiles(t *testing.T) {
	split, threads := start(t, build(t, "split")), start(t, build(t, "threads"))
	t.Cleanup(split.stop) // before its cgroup is removed
	cgroup := inNewCgroup(t, split.pid())
	t.Cleanup(split.stop)
	both := fmt.Sprintf("%d,%d", split.pid(), threads.pid())
	a := startAgent(t, "-p", both)

	var wait sync.WaitGroup
	for query, want := range map[string][]*workload{
		"":                                    {split, threads},
		fmt.Sprintf("&pid=%d", split.pid()):   {split},
		fmt.Sprintf("&pid=%d", threads.pid()): {threads},
		"&pid=" + both:                        {split, threads},
		"&comm=^split$":                       {split},
		"&comm=thr":                           {threads},
		"&cgroup=" + url.QueryEscape(cgroup):  {split},
		fmt.Sprintf("&pid=%d&comm=^threads$", split.pid()): nil, // both must hold
	} {
		wait.Add(1)
		go func() {
			defer wait.Done()
			p, err := a.collect(t, "seconds=2"+query)
			if err != nil {
				t.Error(err)
				return
			}
			checkConservation(t, p)
			got := map[int]int64{}
			for _, s := range p.Sample {
				got[labelPID(s)] += s.Value[0]
			}
			t.Logf("seconds=2%s: samples by pid %v", query, got)
			if len(got) != len(want) {
				t.Errorf("seconds=2%s: samples of %v, wanted %d processes", query, got, len(want))
			}
			for _, w := range want {
				if got[w.pid()] == 0 {
					t.Errorf("seconds=2%s: no sample of %s", query, w.cmd.Path)
				}
			}
			if seconds := time.Duration(p.DurationNanos).Seconds(); seconds < 1.9 || seconds > 2.5 {
				t.Errorf("seconds=2%s: a profile of %.2f s", query, seconds)
			}
		}()
	}
	wait.Wait()

	top, err := exec.Command("go", "tool", "pprof", "-top", fmt.Sprintf("%s/debug/pprof/profile?seconds=1&pid=%d", a.url, split.pid())).CombinedOutput()
	if err != nil || !strings.Contains(string(top), "burn_a") {
		t.Errorf("go tool pprof -top URL: %v\n%s", err, top)
	}
}

// A process that the agent does not sample is refused; its descendants may be sampled all the same.
func TestAgentRefusesOtherProcesses(t *testing.T) {
	w, other := start(t, build(t, "split")), start(t, build(t, "split"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "-F", "499")
	for _, query := range []string{
		fmt.Sprintf("seconds=1&pid=%d", other.pid()), fmt.Sprintf("seconds=1&pid=%d,%d", w.pid(), other.pid()),
	} {
		code, body := a.get(t, "/debug/pprof/profile?"+query)
		want := fmt.Sprintf("process %d is not, or no longer, of the target, which is pid %d", other.pid(), w.pid())
		if code != http.StatusBadRequest || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %.300q, not 400 %s", query, code, body, want)
		}
	}
	for query, sampled := range map[string]bool{
		fmt.Sprintf("seconds=1&pid=%d", w.pid()):                   true,
		fmt.Sprintf("seconds=1&pid=%d&children=true", os.Getpid()): true,
		fmt.Sprintf("seconds=1&pid=%d&children=true", other.pid()): false,
	} {
		p, err := a.collect(t, query)
		if err != nil || (count(p, every) > 0) != sampled {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestAgentRefusesBadRequests(t *testing.T) {
	w := start(t, build(t, "split"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()))
	for _, query := range []string{
		"seconds=601", "seconds=0", "seconds=-1", "seconds=x", "seconds=1&pid=x", "seconds=1&pid=-5", "seconds=1&comm=(",
		"seconds=1&cgroup=/no/such/cgroup", "seconds=1&children=maybe",
	} {
		code, body := a.get(t, "/debug/pprof/profile?"+query)
		if code != http.StatusBadRequest || strings.TrimSpace(body) == "" {
			t.Errorf("%s: %d %q, not 400 and a message", query, code, body)
		}
	}
	for host, want := range map[string]int{
		"evil.example": http.StatusMisdirectedRequest,
		"evil.example:" + a.url[strings.LastIndexByte(a.url, ':')+1:]: http.StatusMisdirectedRequest,
		"localhost": http.StatusOK,
		"127.0.0.1": http.StatusOK,
		"[::1]":     http.StatusOK,
	} {
		for _, path := range []string{"/", "/healthz", "/metrics", "/debug/pprof/profile?seconds=1"} {
			request, err := http.NewRequest(http.MethodGet, a.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = host
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("GET %s with Host %s: %d, not %d", path, host, answer.StatusCode, want)
			}
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		request, err := http.NewRequest(method, a.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s /: %d with Content-Security-Policy %q", method, answer.StatusCode, answer.Header.Get("Content-Security-Policy"))
		}
	}
	if code, _ := a.get(t, "/no/such/page"); code != http.StatusNotFound {
		t.Errorf("an unknown page: %d", code)
	}
}

// More downloads at once than the agent allows: each is served or told 429, and the agent goes on.
func TestAgentTooManyDownloads(t *testing.T) {
	w := start(t, build(t, "split"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()))
	codes := make(chan int)
	const downloads = 300
	for range downloads {
		go func() {
			code, _ := a.get(t, "/debug/pprof/profile?seconds=2")
			codes <- code
		}()
	}
	got := map[int]int{}
	for range downloads {
		got[<-codes]++
	}
	t.Logf("%d downloads at once: %v", downloads, got)
	if got[http.StatusOK] == 0 || got[http.StatusTooManyRequests] == 0 || got[http.StatusOK]+got[http.StatusTooManyRequests] != downloads {
		t.Errorf("%d downloads at once were answered %v, not some 200 and the others 429", downloads, got)
	}
	if p, err := a.collect(t, "seconds=1"); err != nil || count(p, every) == 0 {
		t.Errorf("after that: %v", err)
	}
}

// The metrics are there from the first answer on, with every reason, and add up.
func TestAgentMetrics(t *testing.T) {
	w := start(t, build(t, "split"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()))
	first := a.metrics(t)
	for _, name := range []string{"pilotlight_samples_taken_total", "pilotlight_samples_exported_total"} {
		if _, ok := first[name]; !ok {
			t.Errorf("no metric %s", name)
		}
	}
	p, err := a.collect(t, "seconds=2")
	if err != nil {
		t.Fatal(err)
	}
	_, _, lost := comments(t, p)
	delete(lost, "filtered") // of one download, not of the agent
	for reason := range lost {
		if _, ok := first[fmt.Sprintf("%s%q}", lostPrefix, reason)]; !ok {
			t.Errorf("the profile has samples.lost.%s, the metrics do not", reason)
		}
	}
	// without its target the agent takes no samples: nothing is in flight once what was is through
	w.stop()
	var taken, sum float64
	for range 100 {
		now := a.metrics(t)
		taken, sum = now["pilotlight_samples_taken_total"], now["pilotlight_samples_exported_total"]
		for name, value := range now {
			if strings.HasPrefix(name, lostPrefix) {
				sum += value
			}
		}
		if taken == sum && taken > 0 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("taken %.0f = exported and lost %.0f; %d reasons", taken, sum, len(lost))
	if taken != sum || taken == 0 {
		t.Errorf("%.0f samples taken, %.0f exported or lost", taken, sum)
	}
	if n := count(p, every); float64(n) > taken {
		t.Errorf("a profile of %d samples from %.0f taken", n, taken)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := a.get(t, path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// The agent ends within 5 s of a signal with status 0, and gives a download that runs what it has.
func TestAgentTerminates(t *testing.T) {
	heedHangup(t)
	w := start(t, build(t, "split"))
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			a := startAgent(t, "-p", strconv.Itoa(w.pid()))
			type download struct {
				profile *profile.Profile
				err     error
			}
			downloaded := make(chan download, 1)
			go func() {
				defer close(downloaded) // nothing comes where the agent died
				p, err := a.collect(t, "seconds=60")
				downloaded <- download{p, err}
			}()
			time.Sleep(1500 * time.Millisecond)
			code, took := a.end(t, signal)
			t.Logf("ended in %.2f s", took.Seconds())
			if code != 0 || took > 5*time.Second {
				t.Errorf("exit %d in %.1f s", code, took.Seconds())
			}
			if d := <-downloaded; d.err != nil || d.profile == nil || count(d.profile, every) == 0 {
				t.Errorf("the download that ran then: %v", d.err)
			}
		})
	}
}

// An agent whose target has ended says so, once and on its page, and stays: it gives what it has sampled.
func TestAgentTargetEnds(t *testing.T) {
	w := start(t, build(t, "split"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--children", "-F", "499")
	const words = "no target process is left"
	if _, page := a.get(t, "/"); strings.Contains(page, words) {
		t.Errorf("with a target that runs: %s", page)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p, err := a.collect(t, "seconds=5")
		if err != nil || count(p, contains(exactly("burn_a"))) == 0 {
			t.Errorf("the download in which the target ended: %v", err)
		}
	}()
	time.Sleep(2 * time.Second)
	if said := a.said(); strings.Contains(said, words) {
		t.Errorf("with a target that runs: %s", said)
	}
	w.stop()
	for deadline := time.Now().Add(hang); !strings.Contains(a.said(), words); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing says that the target has ended")
		}
	}
	<-done // three seconds: a second warning would have come
	if n := strings.Count(a.said(), words); n != 1 {
		t.Errorf("said %d times", n)
	}
	if _, page := a.get(t, "/"); !strings.Contains(page, words) {
		t.Errorf("the page says nothing: %s", page)
	}
	if code, body := a.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := a.terminate(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A second agent on the same data directory, or on the same address, says who is there and exits 1.
func TestSecondAgent(t *testing.T) {
	w := start(t, build(t, "split"))
	target := strconv.Itoa(w.pid())
	a := startAgent(t, "-p", target)
	address := strings.TrimPrefix(a.url, "http://")
	for what, args := range map[string][]string{
		"data directory": {"--listen", "127.0.0.1:0", "--data-dir", a.dataDir},
		"address":        {"--listen", address, "--data-dir", t.TempDir()},
	} {
		r := run(t, append([]string{"agent", "-p", target}, args...)...)
		if r.code != 1 || !strings.Contains(r.stderr, strconv.Itoa(a.pid())) {
			t.Errorf("a second agent on the same %s: exit %d, and its message does not name pid %d:\n%s", what, r.code, a.pid(), r.stderr)
		}
	}
	if code, _ := a.get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("the first agent's /readyz: %d", code)
	}
	if code, _ := a.terminate(t); code != 0 {
		t.Errorf("the first agent: exit %d", code)
	}
	// what the first has left behind does not keep the next from starting
	again := exec.Command(pilotlight, "agent", "-p", target, "--listen", address, "--data-dir", a.dataDir)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if answer, err := http.Get(a.url + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = again.Process.Signal(syscall.SIGTERM)
	if err := again.Wait(); err != nil {
		t.Errorf("an agent after the first: %v", err)
	}
}

// Addresses that others can reach need TLS, a token or a flag that names the risk.
func TestAgentLoopbackOnly(t *testing.T) {
	w := start(t, build(t, "split"))
	r := run(t, "agent", "-p", strconv.Itoa(w.pid()), "--listen", "0.0.0.0:0", "--data-dir", t.TempDir())
	if r.code != 2 && r.code != 1 || r.stderr == "" {
		t.Errorf("--listen 0.0.0.0:0: exit %d\n%s", r.code, r.stderr)
	}
}
