package engines

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store"
)

// buildBinary builds the program under test.
var buildBinary = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../build/pilotlight")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", path, "./cmd/pilotlight")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pilotlight: %w\n%s", err, out)
	}
	return path, nil
})

// agent is an agent that samples one idle process of ours.
type agent struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	output *logText
}

func startAgent(t *testing.T, args ...string) *agent {
	t.Helper()
	binary, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	target := exec.Command("sleep", "600")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Process.Kill(); _ = target.Wait() })
	a := &agent{t: t, output: new(logText)}
	a.cmd = exec.Command(binary, append([]string{"agent", "-v", "--seccomp", "trap", "--listen", "127.0.0.1:0", "-p", fmt.Sprint(target.Process.Pid)}, args...)...)
	a.cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey)
	a.cmd.Stderr = a.output
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	listening := regexp.MustCompile(`listening on (http://\S+)`)
	eventually(t, "the agent listens", func() bool {
		m := listening.FindStringSubmatch(a.output.String())
		if m != nil {
			a.url = m[1]
		}
		return m != nil
	})
	return a
}

func (a *agent) kill() {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		a.cmd = nil
		if strings.Contains(a.output.String(), secretKey) {
			a.t.Errorf("the agent tells the secret:\n%s", a.output)
		}
	}
}

// metric is 0 where it is not there.
func (a *agent) metric(name string) (value float64) {
	a.t.Helper()
	r, err := http.Get(a.url + "/metrics")
	if err != nil {
		a.t.Fatalf("%v\n%s", err, a.output)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text); m != nil {
		fmt.Sscan(string(m[1]), &value)
	}
	return value
}

// The agent uploads its history, whatever is killed meanwhile, and goes on where it was.
func TestAgentUploads(t *testing.T) {
	dir := t.TempDir()
	past, err := store.Open(store.Options{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	var programs []*program
	for pid := range 20 { // some hundred kB in all
		var functions []string
		for range 10 {
			functions = append(functions, fmt.Sprintf("function_%x", r.Uint64()))
		}
		programs = append(programs, newProgram(pid, fmt.Sprintf("program%d", pid), functions...))
	}
	for hour := range 8 {
		for i := range 12 {
			past.Export(interval(r, day(2).Add(time.Duration(hour)*time.Hour+time.Duration(i)*10*time.Second), programs))
		}
	}
	host := past.Host()
	eventually(t, "the past is compacted", func() bool { return len(listed(t, dir, "")) == 2 })
	if err := past.Close(); err != nil {
		t.Fatal(err)
	}
	want := listed(t, dir, "host="+host)

	s := startServer(t)
	args := []string{"--data-dir", dir, "--upload-url", s3URL, "--upload-endpoint", s.endpoint()}
	slow := append(args, "--upload-rate", "20kB")
	a := startAgent(t, slow...)
	eventually(t, "files are pending", func() bool { return a.metric("pilotlight_upload_pending") > 0 })
	time.Sleep(time.Second) // amidst the first
	s.kill()
	eventually(t, "the failure is counted", func() bool { return a.metric("pilotlight_upload_failures_total") > 0 })
	if ready, err := http.Get(a.url + "/readyz"); err != nil || ready.StatusCode != http.StatusOK {
		t.Errorf("an agent without its storage: %v, %v", ready, err)
	}
	s.start()
	time.Sleep(3 * time.Second) // amidst another try
	a.kill()

	a = startAgent(t, slow...)
	eventually(t, "files are pending again", func() bool { return a.metric("pilotlight_upload_pending") > 0 })
	began := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("SIGTERM amidst an upload: %v after %s\n%s", err, time.Since(began), a.output)
	}
	a.cmd = nil

	a = startAgent(t, args...)
	complete := func() bool {
		objects := s.objects()
		for path, content := range want {
			if !bytes.Equal(objects[path], content) {
				return false
			}
		}
		return true
	}
	eventually(t, "all is uploaded", complete)
	eventually(t, "that is counted", func() bool {
		return a.metric("pilotlight_upload_sent_total") > 0 && a.metric("pilotlight_upload_pending") == 0
	})
	for path := range s.objects() {
		if _, ok := want[path]; !ok {
			t.Errorf("%s was uploaded: it is not compacted", path)
		}
	}
	t.Logf("%d files; %g sent by the last agent, in %d bytes", len(want), a.metric("pilotlight_upload_sent_total"), int(a.metric("pilotlight_upload_sent_size_bytes_total")))
}

// listed are the files of a history below directories of a name.
func listed(t *testing.T, dir, below string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(filepath.Join(dir, "v1"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".parquet") || !strings.Contains(path, below) {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(relative)], err = os.ReadFile(path)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}
