package store

import (
	"bufio"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Of the crash test: an interval every twelve minutes of a made-up time for eight hours, so that hours and days go by in no time, and then an hour in which so many come,
// each with new stacks, that these are put together before it is over.
const (
	crashDirVariable        = "PILOTLIGHT_CRASH_DIR"
	crashFirstVariable      = "PILOTLIGHT_CRASH_FIRST"
	crashStep, crashSteps   = 12 * time.Minute, 40
	crashDense, crashDenses = 2 * time.Minute, 25
	crashAge                = 30 * time.Hour
	crashLength             = 2 * time.Second
)

var crashStart = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func crashTime(number int) time.Time {
	block, step := number/(crashSteps+crashDenses), number%(crashSteps+crashDenses)
	hours := crashSteps * crashStep
	after := time.Duration(block)*(hours+time.Hour) + time.Duration(min(step, crashSteps))*crashStep + time.Duration(max(step-crashSteps, 0))*crashDense
	return crashStart.Add(after + 1234*time.Millisecond)
}

// crashInterval makes the profile of a number, always the same one.
func crashInterval(number int) *profile.Profile {
	seed := number - number%(crashSteps+crashDenses)
	if number-seed >= crashSteps {
		seed = number
	}
	host := busyhost.New(busyhost.Options{Seed: uint64(seed), CPUs: 1, Processes: 12, Stacks: 60, Frames: 8})
	return host.Interval(crashTime(number), crashLength)
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVariable); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled is the process that crashes. It says each interval that the store has taken.
func writeUntilKilled(dir string) error {
	number, err := strconv.Atoi(os.Getenv(crashFirstVariable))
	if err != nil {
		return err
	}
	c := &clock{}
	c.set(crashTime(number))
	s, err := Open(Options{
		Dir: dir, Host: "here", MaxAge: crashAge, now: c.time, free: plenty, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	fmt.Println("open")
	for written := uint64(0); ; number++ {
		p := crashInterval(number)
		c.export(s, p)
		if written++; s.Stats().Intervals != written {
			return fmt.Errorf("interval %d was not written: %+v", number, s.Stats())
		}
		fmt.Println(number)
		if s.Stats().Damaged > 0 {
			return fmt.Errorf("damaged files: %+v", s.Stats())
		}
	}
}

// Whatever is going on when the writer is killed, writing, compaction or removal of what is too old: what was
// acknowledged is there to the sample, once, and what was not is there as a whole or not at all.
func TestKilled(t *testing.T) {
	t.Parallel()
	kills := 20
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		kills = 200
	}
	dir, err := os.MkdirTemp("/dev/shm", "pilotlight-crash-") // fsync there takes no time, and a kill does not need it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	want := make(map[int]content) // of the intervals that must be there, by number
	begun, next, unfinished, kept := time.Now(), 0, 0, 0
	var compactions, parts, removals int
	for range kills {
		before := existing(t, dir)
		acknowledged := runAndKill(t, dir, next, random.IntN(60), time.Duration(random.Int64N(int64(20*time.Millisecond))))
		for _, number := range acknowledged {
			want[number] = contentOf(number)
			next = number + 1
		}
		got := readByMinute(t, dir)
		// The one that was under way when the kill came.
		if c := got[minuteOf(next)]; len(c) > 0 {
			want[next] = contentOf(next)
			kept++
		} else {
			unfinished++
		}
		next++
		checkKilled(t, got, want, next-1)
		after := existing(t, dir)
		for path, f := range after {
			if !before[path].start.IsZero() {
				continue
			}
			if f.span > spanInterval {
				compactions++
			}
			if f.span == spanPart {
				parts++
			}
		}
		for path, f := range before {
			if after[path].start.IsZero() && f.span == spanDay {
				removals++
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("seed %d: %d kills in %v, %d intervals acknowledged; of those under way %d were there and %d not; %d compacted files, %d of them parts of hours, %d days removed",
		seed, kills, time.Since(begun).Round(time.Millisecond), next-kills, kept, unfinished, compactions, parts, removals)
	if next < 5*kills || compactions < kills || parts == 0 {
		t.Errorf("too little was going on: %d intervals, %d compactions, %d of parts of hours", next, compactions, parts)
	}
}

func existing(t *testing.T, dir string) map[string]file {
	t.Helper()
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]file)
	for _, f := range files {
		paths[f.path()] = f
	}
	return paths
}

// runAndKill kills the process a moment after it has acknowledged a count, and gives the numbers that it acknowledged.
func runAndKill(t *testing.T, dir string, first, count int, moment time.Duration) (acknowledged []int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirVariable+"="+dir, crashFirstVariable+"="+strconv.Itoa(first))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := make(chan error, 1)
	scanner := bufio.NewScanner(out)
	running := false
	for scanner.Scan() {
		if scanner.Text() != "open" {
			number, err := strconv.Atoi(scanner.Text())
			if err != nil {
				t.Fatalf("the writer says %q", scanner.Text())
			}
			acknowledged = append(acknowledged, number)
		}
		if len(acknowledged) >= count && !running {
			running = true
			time.AfterFunc(moment, func() { killed <- cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); !running || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	return acknowledged
}

func minuteOf(number int) int64 {
	return crashTime(number).Truncate(time.Minute).UnixMilli()
}

func contentOf(number int) content {
	c := make(content)
	c.addProfile(crashInterval(number))
	return c
}

// readByMinute reads all that the history says, by the minute of its rows.
func readByMinute(t *testing.T, dir string) map[int64]content {
	t.Helper()
	minutes := make(map[int64]content)
	visit(t, dir, false, func(stack string, row *SampleRow) {
		minute := time.UnixMilli(row.Time).Truncate(time.Minute).UnixMilli()
		if minutes[minute] == nil {
			minutes[minute] = make(content)
		}
		minutes[minute].add(stack, describe(row), row.Count, row.Value)
	})
	return minutes
}

// checkKilled compares what is there with what must be: all that is not too old, and nothing else.
func checkKilled(t *testing.T, got map[int64]content, want map[int]content, last int) {
	t.Helper()
	now := crashTime(last).Add(crashLength) // the writer had begun with it
	numbers := make(map[int64]int)
	for number, expected := range want {
		numbers[minuteOf(number)] = number
		start := crashTime(number)
		c, ok := got[minuteOf(number)]
		if !ok && start.After(now.Add(-crashAge)) {
			t.Errorf("interval %d of %v is not there", number, start)
		}
		if !ok {
			continue
		}
		if !maps.Equal(c, expected) {
			same(t, fmt.Sprint("interval ", number), c, expected)
		}
	}
	for minute := range got {
		if _, ok := numbers[minute]; !ok {
			t.Errorf("something is there of %v, when nothing was sampled", time.UnixMilli(minute).UTC())
		}
	}
}
