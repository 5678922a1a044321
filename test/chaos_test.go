// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/parquet-go/parquet-go"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/destination/receiver"
)

// Lengths of the chaos tests: short as part of everything, whole with PILOTLIGHT_LONG.
func chaosLengths() (outage time.Duration, kills int) {
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		return 5 * time.Minute, 60
	}
	return 30 * time.Second, 20
}

// intervalsOf counts what a history holds, by the millisecond at which each interval began.
func intervalsOf(t *testing.T, dataDir string) map[int64]int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, "v1/samples/resolution=10s/*/*/*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[int64]int64)
	for _, file := range files {
		rows, err := parquet.ReadFile[struct {
			Time       time.Time `parquet:"time,timestamp(millisecond)"`
			LossReason string    `parquet:"loss_reason"`
			Count      int64     `parquet:"count"`
		}](file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, row := range rows {
			if row.LossReason == "" {
				of[row.Time.UnixMilli()] += row.Count
			}
		}
	}
	return of
}

// deliveredTo counts what a receiver took in the same way. A profile that came twice counts once; twice says how many did.
func deliveredTo(r []*receiver.Request) (of map[int64]int64, twice int) {
	of = make(map[int64]int64)
	seen := make(map[string]bool)
	for _, q := range r {
		if q.Profiles == nil {
			continue
		}
		for _, resource := range q.Profiles.ResourceProfiles {
			for _, scope := range resource.ScopeProfiles {
				p := scope.Profiles[0]
				if seen[string(p.ProfileId)] {
					twice++
					continue
				}
				seen[string(p.ProfileId)] = true
				for _, s := range p.Samples {
					for _, v := range s.Values {
						of[int64(p.TimeUnixNano)/1e6] += v
					}
				}
			}
		}
	}
	return of, twice
}

func total(of map[int64]int64) (n int64) {
	for _, v := range of {
		n += v
	}
	return n
}

// queueAccount is what the agent's queue of profiles has written down.
type queueAccount struct {
	Collected, Delivered, Partial struct{ Samples int64 }
	Dropped                       map[string]struct{ Samples int64 }
}

func queueAccountOf(t *testing.T, dataDir string) (a queueAccount) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, "queue/profiles-*/account.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("accounts: %q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *queueAccount) dropped() (n int64) {
	for _, d := range a.Dropped {
		n += d.Samples
	}
	return n
}

// moody is a receiver whose moods are set one by one; each refuses one request.
type moody struct {
	mu    sync.Mutex
	moods []receiver.Reply
	met   []string
}

func (m *moody) answer(q *receiver.Request) receiver.Reply {
	if q.Signal != "profiles" {
		return receiver.Reply{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.moods) == 0 {
		return receiver.Reply{}
	}
	mood := m.moods[0]
	m.moods = m.moods[1:]
	m.met = append(m.met, fmt.Sprintf("%d/%s abort=%t delay=%s", mood.Status, mood.Code, mood.Abort, mood.Delay))
	return mood
}

// A backend that is away, dead while it is connected, slow, broken off in the middle of a request, and refusing in every way: what it did not get is counted, the rest
// arrives, and sampling goes on as if nothing were.
func TestChaosBackend(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			outage, _ := chaosLengths()
			address := freeAddress(t)
			m := &moody{}
			r := startReceiver(t, address, m)
			w := start(t, build(t, "split"), "900")
			a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--otlp-endpoint", "http://"+address, "--otlp-protocol", protocol, "--otlp-timeout", "4s", "--otlp-metrics-interval", "5s")
			waitFor(t, "the first profile", func() bool { n, _ := deliveredTo(r.Taken()); return len(n) > 0 })
			before := a.metrics(t)

			// Away, and then there but dead: connections are taken and nothing more.
			began := time.Now()
			taken := r.Taken()
			r.Close()
			time.Sleep(outage / 2)
			dead, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			var held []net.Conn
			go func() {
				for {
					c, err := dead.Accept()
					if err != nil {
						return
					}
					held = append(held, c)
				}
			}()
			time.Sleep(outage / 2)
			after := a.metrics(t)
			dead.Close()
			if code, _ := a.get(t, "/readyz"); code != 200 {
				t.Errorf("not ready during the outage: %d", code)
			}
			grown := after["pilotlight_agent_rss_anonymous_bytes"] - before["pilotlight_agent_rss_anonymous_bytes"]
			t.Logf("away for %s: anonymous memory %+.1f MB, %v messages wait", time.Since(began).Round(time.Second), grown/1e6, sumOf(after, "pilotlight_otlp_queue_messages"))
			if grown > 24e6 {
				t.Errorf("memory grew by %.1f MB during the outage", grown/1e6)
			}
			if sumOf(after, "pilotlight_otlp_queue_messages") < 2 {
				t.Error("nothing waits")
			}

			m.moods = []receiver.Reply{
				{Abort: true}, {}, {Abort: true, Taken: true}, {}, {Delay: 10 * time.Second, Taken: true}, {},
				{Status: 401, Code: connect.CodeUnauthenticated}, {Status: 429, Code: connect.CodeResourceExhausted, RetryAfter: 2 * time.Second}, {},
				{Status: 500, Code: connect.CodeInternal}, {Status: 503, Code: connect.CodeUnavailable}, {},
				{Status: 413, Code: connect.CodeInvalidArgument},
			}
			again := startReceiver(t, address, m)
			waitFor(t, "the receiver went through all its moods", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.moods) == 0 })
			waitFor(t, "everything was sent", func() bool {
				return sumOf(a.metrics(t), `pilotlight_otlp_queue_messages`) == 0
			})
			if code, took := a.terminate(t); code != 0 || took > 5*time.Second {
				t.Errorf("the agent ended with %d after %s", code, took)
			}
			got, twice := deliveredTo(slices.Concat(taken, again.Taken()))
			want, account := intervalsOf(t, a.dataDir), queueAccountOf(t, a.dataDir)
			t.Logf("%d moods: %s", len(m.met), strings.Join(m.met, "; "))
			t.Logf("%d intervals of %d samples; delivered %d, refused %d, %d profiles came twice", len(want), total(want), total(got), account.dropped(), twice)
			if total(got)+account.dropped() != total(want) || account.Collected.Samples != total(want) {
				t.Errorf("delivered %d + dropped %d are not the %d that were taken (%+v)", total(got), account.dropped(), total(want), account)
			}
			if account.dropped() == 0 || account.Dropped["refused"].Samples != account.dropped() {
				t.Errorf("the one that was refused for ever is not counted so: %+v", account)
			}
			if twice == 0 {
				t.Error("the profile whose answer was broken off did not come again")
			}
			checkContiguous(t, want)
		})
	}
}

func startReceiver(t *testing.T, address string, m *moody) *receiver.Receiver {
	t.Helper()
	r, err := receiver.Start(address, nil, m.answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// sumOf adds up all series of a metric.
func sumOf(metrics map[string]float64, name string) (sum float64) {
	for series, v := range metrics {
		if series == name || strings.HasPrefix(series, name+"{") {
			sum += v
		}
	}
	return sum
}

// checkContiguous looks for a pause of the sampling: each interval begins where the one before ended.
func checkContiguous(t *testing.T, of map[int64]int64) {
	t.Helper()
	starts := slices.Sorted(maps.Keys(of))
	for i, at := range starts[:len(starts)-1] {
		if gap := time.Duration(starts[i+1]-at) * time.Millisecond; gap < 9*time.Second || gap > 11500*time.Millisecond {
			t.Errorf("an interval began %s after the one before", gap)
		}
		if of[at] == 0 {
			t.Error("an interval has no samples")
		}
	}
}

// However often the agent is killed, with a receiver that fails now and then: what it had written down arrives, or is counted.
func TestChaosKills(t *testing.T) {
	t.Parallel()
	_, kills := chaosLengths()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	answer := func(q *receiver.Request) receiver.Reply {
		mu.Lock()
		defer mu.Unlock()
		switch random.IntN(8) {
		case 0:
			return receiver.Reply{Abort: true, Taken: random.IntN(2) == 0}
		case 1:
			return receiver.Reply{Code: connect.CodeUnavailable}
		case 2:
			return receiver.Reply{Delay: time.Duration(random.IntN(2000)) * time.Millisecond}
		}
		return receiver.Reply{}
	}
	r, err := receiver.Start("127.0.0.1:0", nil, answer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w := start(t, build(t, "split"), "3600")
	dir := t.TempDir()
	begin := func() *agent {
		return startAgent(t, "-p", strconv.Itoa(w.pid()), "--data-dir", dir, "--otlp-endpoint", "http://"+r.Address(), "--otlp-metrics-interval", "1s")
	}
	gaps := 0
	for range kills {
		a := begin()
		if sumOf(a.metrics(t), "pilotlight_otlp_gap_seconds_total") > 0 {
			gaps++
		}
		mu.Lock()
		life := time.Duration(random.Int64N(int64(14 * time.Second)))
		mu.Unlock()
		time.Sleep(life)
		a.end(t, syscall.SIGKILL)
	}
	a := begin()
	time.Sleep(11 * time.Second)
	waitFor(t, "everything was sent", func() bool { return sumOf(a.metrics(t), "pilotlight_otlp_queue_messages") == 0 })
	if code, _ := a.terminate(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	got, twice := deliveredTo(r.Taken())
	want, account := intervalsOf(t, dir), queueAccountOf(t, dir)
	var both, historyAlone, queueAlone int
	for at, n := range want {
		switch m, ok := got[at]; {
		case !ok:
			historyAlone++
		case m != n:
			t.Errorf("of the interval at %d %d samples arrived, the history has %d", at, m, n)
		default:
			both++
		}
	}
	for at := range got {
		if _, ok := want[at]; !ok {
			queueAlone++
		}
	}
	t.Logf("seed %d: %d kills, %d restarts said how long the gap was; %d intervals are in both, %d in the history alone, %d in the queue alone; %d profiles came twice; "+
		"collected %d = delivered %d + dropped %d", seed, kills, gaps, both, historyAlone, queueAlone, twice, account.Collected.Samples, account.Delivered.Samples, account.dropped())
	if both == 0 || historyAlone+queueAlone > kills {
		t.Errorf("a kill costs more than the interval that was open")
	}
	if account.Collected.Samples != account.Delivered.Samples+account.dropped() || total(got) != account.Delivered.Samples {
		t.Errorf("%d arrived; the account says %+v", total(got), account)
	}
	if gaps == 0 {
		t.Error("no restart said how long the gap was")
	}
}

// A disk that is full under the queue: what it refuses waits in memory, and arrives.
func TestChaosDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("pilotlight-test", dir, "tmpfs", 0, "size=160k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	address := freeAddress(t)
	w := start(t, build(t, "split"), "900")
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--data-dir", dir, "--no-history", "--otlp-endpoint", "http://"+address, "--otlp-metrics-interval", "1s")
	filler := filepath.Join(dir, "filler")
	waitFor(t, "the disk is full, and the queue says so", func() bool {
		if f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			f.Write(make([]byte, 4096)) // until there is no room
			f.Close()
		}
		return strings.Contains(a.said(), "waits in memory")
	})
	time.Sleep(11 * time.Second) // an interval of profiles
	m := &moody{}
	r := startReceiver(t, address, m)
	waitFor(t, "everything was sent", func() bool { return sumOf(a.metrics(t), "pilotlight_otlp_queue_messages") == 0 })
	metrics := a.metrics(t)
	dropped := sumOf(metrics, "pilotlight_otlp_messages_dropped_total")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if code, _ := a.terminate(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	got, _ := deliveredTo(r.Taken())
	t.Logf("%d messages arrived, %d samples, %v dropped", len(r.Taken()), total(got), dropped)
	account := queueAccountOf(t, dir)
	if total(got) == 0 || dropped != 0 || account.Collected.Samples != total(got) {
		t.Errorf("%d samples arrived; the account says %+v", total(got), account)
	}
}
