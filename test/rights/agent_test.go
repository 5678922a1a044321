// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
)

// hang is when a test calls a command hung; no expectation of its speed.
const hang = 2 * time.Minute

// command is pilotlight in a room. Calls that its filter refuses end it.
func (r room) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	r.Command = append([]string{pilotlight}, args...)
	return r.launcher(t)
}

func (r room) launcher(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	description := filepath.Join(dataDir(t), "room.json") // too long for the environment
	if err := os.WriteFile(description, text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=launch", roomVariable+"="+description, "PILOTLIGHT_SECCOMP=trap")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// fails runs pilotlight, which must end with a status and one line that says why.
func (r room) fails(t *testing.T, status int, args ...string) string {
	t.Helper()
	cmd := r.command(t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	_ = cmd.Run()
	said := strings.TrimSpace(stderr.String())
	if code := cmd.ProcessState.ExitCode(); code != status || strings.Contains(said, "\n") || !strings.HasPrefix(said, "pilotlight: ") {
		t.Errorf("exit %d, want %d and one line\n%s", code, status, said)
	}
	return said
}

// An agent is a running `pilotlight agent`.
type agent struct {
	cmd   *exec.Cmd
	url   string
	mu    sync.Mutex
	said  []string
	ended chan struct{}
}

// dataDir is a directory that everyone can write.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(folder, "data-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts an agent and returns once it is ready.
func (r room) start(t *testing.T, args ...string) *agent {
	t.Helper()
	a := &agent{ended: make(chan struct{})}
	a.cmd = r.command(t, append([]string{"agent", "--listen", "127.0.0.1:0", "--data-dir", dataDir(t)}, args...)...)
	pipe, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.ended
		_ = a.cmd.Wait()
	})
	listening := make(chan string, 1)
	go func() {
		defer close(a.ended)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			a.mu.Lock()
			a.said = append(a.said, lines.Text())
			a.mu.Unlock()
			if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok {
				listening <- address
			}
		}
	}()
	select {
	case a.url = <-listening:
	case <-a.ended:
		t.Fatalf("the agent ended:\n%s", a.all())
	case <-time.After(hang):
		t.Fatalf("the agent does not listen:\n%s", a.all())
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(20 * time.Millisecond) {
		if code, _ := a.get(t, "/readyz"); code == http.StatusOK {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent does not get ready")
		}
	}
}

func (a *agent) all() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.said, "\n")
}

// losses are the lines that say what is lost.
func (a *agent) losses() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return lossLines(a.said)
}

func lossLines(said []string) []string {
	var losses []string
	for _, line := range said {
		if loss, ok := strings.CutPrefix(line, "pilotlight: lost: "); ok {
			losses = append(losses, loss)
		}
	}
	return losses
}

func (a *agent) get(t *testing.T, path string) (int, []byte) {
	t.Helper()
	client := http.Client{Timeout: hang}
	answer, err := client.Get(a.url + path)
	if err != nil {
		t.Fatalf("GET %s: %v\n%s", path, err, a.all())
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("GET %s: %v\n%s", path, err, a.all())
	}
	return answer.StatusCode, body
}

// profile takes one of some seconds.
func (a *agent) profile(t *testing.T, seconds int) *profile.Profile {
	t.Helper()
	code, body := a.get(t, "/debug/pprof/profile?seconds="+strconv.Itoa(seconds))
	if code != http.StatusOK {
		t.Fatalf("profile: %d %s", code, body)
	}
	p, err := profile.ParseData(body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stop interrupts the agent, which must end well.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.ended:
	case <-time.After(hang):
		t.Fatal("the agent ignores SIGINT")
	}
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v\n%s", err, a.all())
	}
}

// samples counts all samples and those inside of a function.
func samples(p *profile.Profile, function string) (all, inside int64) {
	for _, s := range p.Sample {
		all += s.Value[0]
		for _, l := range s.Location {
			for _, line := range l.Line {
				if line.Function != nil && line.Function.Name == function {
					inside += s.Value[0]
				}
			}
		}
	}
	return all, inside
}

// mostlyNamed takes profiles until most samples are inside of a function; on a machine that is slow (an emulated one) the
// first may come before the files were read. It returns the counts of the last.
func (a *agent) mostlyNamed(t *testing.T, function string) (ok bool, all, inside int64) {
	t.Helper()
	for range 5 {
		if all, inside = samples(a.profile(t, 1), function); inside > 0 && 2*inside >= all {
			return true, all, inside
		}
	}
	return false, all, inside
}

const burning = "github.com/pilotlight/pilotlight/test/rights.burnCPU"

// threadStatus reads a field of /proc/PID/status, which all threads must agree on.
func (a *agent) threadStatus(t *testing.T, field string) string {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", a.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var common string
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", a.cmd.Process.Pid, task.Name()))
		if err != nil {
			continue // a thread that ended
		}
		_, rest, ok := strings.Cut(string(text), "\n"+field+":")
		value, _, _ := strings.Cut(rest, "\n")
		value = strings.TrimSpace(value)
		if !ok || common != "" && value != common {
			t.Errorf("%s of thread %s is %q, of another %q", field, task.Name(), value, common)
		}
		common = value
	}
	return common
}
