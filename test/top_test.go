// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3/vt"
	"golang.org/x/sys/unix"
)

// pty is a real pseudo-terminal with an emulator that shows what a user would see.
type pty struct {
	master, slave *os.File
	screen        vt.MockTerm

	mu  sync.Mutex
	raw bytes.Buffer // all that was written to the terminal
}

func openPty(t *testing.T, columns, rows int) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	p := &pty{master: master, slave: slave, screen: vt.NewMockTerm()}
	p.resize(t, columns, rows)
	if err := p.screen.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // what the terminal answers
		buffer := make([]byte, 4096)
		for {
			n, err := p.screen.Read(buffer)
			if err != nil {
				return
			}
			_, _ = master.Write(buffer[:n])
		}
	}()
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.raw.Write(buffer[:n])
			p.mu.Unlock()
			_, _ = p.screen.Write(buffer[:n])
		}
	}()
	return p
}

func (p *pty) resize(t *testing.T, columns, rows int) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	p.screen.SetSize(vt.Coord{X: vt.Col(columns), Y: vt.Row(rows)})
}

func (p *pty) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// lines are what is on the screen.
func (p *pty) lines() (lines []string) {
	size := p.screen.Backend().GetSize()
	for y := range size.Y {
		var text strings.Builder
		for x := range size.X {
			if c := p.screen.GetCell(vt.Coord{X: x, Y: y}).C; c != "" {
				text.WriteString(c)
			} else {
				text.WriteByte(' ')
			}
		}
		lines = append(lines, strings.TrimRight(text.String(), " "))
	}
	return lines
}

func (p *pty) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.raw.String()
}

// shows waits until the screen fulfils what is wanted of it.
func (p *pty) shows(t *testing.T, what string, wanted func(screen string) bool) string {
	t.Helper()
	for end := time.Now().Add(hang); ; time.Sleep(50 * time.Millisecond) {
		screen := strings.Join(p.lines(), "\n")
		if wanted(screen) {
			return screen
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not on the screen:\n%s", what, screen)
		}
	}
}

// order says whether the words stand on lines of their own, in this order.
func order(words ...string) func(string) bool {
	return func(screen string) bool {
		for _, word := range words {
			at := strings.Index(screen, word)
			if at < 0 {
				return false
			}
			screen = screen[at:]
			_, screen, _ = strings.Cut(screen, "\n")
		}
		return true
	}
}

// The live view, as a user sees it: what is hot, who called it, and no byte of a hostile name.
func TestTopLive(t *testing.T) {
	split := build(t, "split")
	hostile := filepath.Join(t.TempDir(), "\x1b[31mev\x1b]0;x\a\x9b")
	data, err := os.ReadFile(split)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hostile, data, 0o755); err != nil {
		t.Fatal(err)
	}
	one, two := start(t, split), start(t, hostile)

	p := openPty(t, 80, 24)
	before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(pilotlight, "top", "-F", "499", "-p", fmt.Sprintf("%d,%d", one.pid(), two.pid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LANG=C.UTF-8", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	screen := p.shows(t, "the split of the workload", order("PROCESS", "FUNCTIONS", " burn_a", " burn_b", " burn_c"))
	t.Logf("80 x 24:\n%s", screen)
	for _, want := range []string{fmt.Sprint(one.pid()), fmt.Sprint(two.pid()), "?[31mev?]0;x", "499 Hz", "q quit"} {
		if !strings.Contains(screen, want) {
			t.Errorf("no %q in\n%s", want, screen)
		}
	}

	p.press(t, "\r") // the hottest function is selected
	screen = p.shows(t, "the caller of burn_a", order(" burn_a", "CALLERS", " middle", "CALLEES"))
	t.Logf("callers:\n%s", screen)
	p.press(t, "\r")
	p.shows(t, "the caller of middle", order(" middle", "CALLERS", " work", "CALLEES", " burn_a", " burn_b"))
	p.press(t, "\x7f\x7f")
	p.shows(t, "the tables", order("PROCESS", "FUNCTIONS", " burn_a"))

	p.press(t, "?")
	p.shows(t, "the help", order("upper list", "pause"))
	p.press(t, "x/burn_b\r")
	p.shows(t, "only burn_b", func(s string) bool {
		_, functions, _ := strings.Cut(s, "FUNCTIONS with /burn_b/")
		return strings.Contains(functions, " burn_b") && !strings.Contains(functions, "burn_a")
	})
	p.press(t, "p")
	p.shows(t, "that it is paused", func(s string) bool { return strings.Contains(s, " paused") })

	// A process alone.
	p.press(t, "p\x7f\t\r")
	p.shows(t, "one process", func(s string) bool { return strings.Contains(s, "FUNCTIONS of ") })

	p.resize(t, 120, 40)
	p.shows(t, "a larger view", func(s string) bool {
		lines := strings.Split(s, "\n")
		return len(lines) == 40 && strings.Contains(lines[39], "q quit")
	})
	p.resize(t, 30, 6)
	p.shows(t, "a tiny view", func(s string) bool {
		lines := strings.Split(s, "\n")
		return len(lines) == 6 && strings.Contains(lines[5], "select") && strings.Contains(lines[0], "pilotlight")
	})

	p.press(t, "q")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, p.output())
		}
	case <-time.After(hang):
		t.Fatal("q does not quit")
	}
	after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v, %+v, %+v", err, before, after)
	}
	p.shows(t, "the terminal's own screen", func(string) bool { return strings.Contains(p.output(), "\x1b[?1049l") })
	for _, bad := range []string{"\x1b[31mev", "\x1b]0;x", "\a\x9b"} {
		if strings.Contains(p.output(), bad) {
			t.Errorf("%q reached the terminal", bad)
		}
	}
}

// As text: for files, pipes and machines.
func TestTopOnce(t *testing.T) {
	w := start(t, build(t, "split"))
	r := run(t, "top", "--once", "-d", "1s", "-F", "499", "-p", fmt.Sprint(w.pid()))
	if r.code != 0 || !order("PROCESS", fmt.Sprint(w.pid()), "FUNCTIONS", " burn_a", " burn_b", " burn_c")(r.stdout) {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Contains(r.stdout, "\x1b") {
		t.Errorf("%q", r.stdout)
	}
	for _, args := range [][]string{{"top"}, {"top", "-d", "3s"}, {"top", "--once", "-d", "-1s"}, {"top", "--once", "-n", "0"}} {
		if r := run(t, args...); r.code != 2 || !strings.Contains(r.stderr, "pilotlight: ") {
			t.Errorf("%q: exit %d\n%s", args, r.code, r.stderr)
		}
	}
}
