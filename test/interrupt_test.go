// SPDX-License-Identifier: Apache-2.0

package test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// A query that is interrupted leaves nothing of the file that it was to write.
func TestQueryInterrupted(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	s, err := store.Open(store.Options{Dir: dir, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	host := busyhost.New(busyhost.Options{})
	for i := range 12 {
		s.Export(host.Interval(time.Now().Add(time.Duration(i-13)*10*time.Second), 10*time.Second))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		cmd := exec.Command(pilotlight, "query", "--data-dir", dir, "--format", "pprof", "-o", filepath.Join(out, "all.pb.gz"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(hang); ; time.Sleep(100 * time.Microsecond) {
			if left, _ := filepath.Glob(filepath.Join(out, ".all*")); len(left) > 0 || time.Now().After(deadline) {
				break
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		left, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		if exitCode(cmd.ProcessState) == 128+int(syscall.SIGINT) && !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			if len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
			return
		}
		if len(left) > 1 {
			t.Fatalf("%v are left", left)
		}
		_ = os.Remove(filepath.Join(out, "all.pb.gz")) // it was done before the signal came
	}
	t.Error("no query was interrupted")
}
