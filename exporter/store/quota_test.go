package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// novelties adds stacks that nobody has seen before to a profile, all of one process.
func novelties(p *profile.Profile, labels *profile.Labels, from, n, frames int) {
	for i := range n {
		s := profile.Sample{User: &profile.Stack{}, Labels: labels, Count: 1, Value: p.Period, Times: []time.Duration{0}}
		for depth := range frames {
			s.User.Locations = append(s.User.Locations, &profile.Location{Kind: profile.FrameNative, Mapping: &profile.Mapping{Path: "/tmp/x"},
				Lines: []profile.Line{{Function: &profile.Function{File: "x.c", Name: fmt.Sprintf("f%x", (from+i)*2654435761>>depth)}}}})
		}
		p.Samples = append(p.Samples, s)
		p.Account.Taken++
		p.Account.Exported++
	}
}

// A program that makes up new stacks all the time takes a bounded part of the date's stacks, on disk and in memory: the others' are kept, those that come later
// too, and of its own all samples are, with the reason. The next date begins anew, and a restart does not.
func TestStacksOfADateAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T12:00:03Z")
	var log bytes.Buffer
	const maxBytes = 32 << 20
	o := Options{Dir: dir, now: c.time, MaxBytes: maxBytes, Log: slog.New(slog.NewTextHandler(&log, nil))}
	s := openStore(t, o)
	host, hostile := smallHost(1), &profile.Labels{PID: 666, Comm: "bad", Exe: "/tmp/bad", Cgroup: "/user.slice"}
	var hostileSamples, others uint64
	made := 0
	interval := func() {
		p := host.Interval(when, 10*time.Second)
		others += p.Account.Exported
		novelties(p, hostile, made, 1000, 20)
		made += 1000
		hostileSamples += 1000
		s.Export(p)
		host.NextHour()
		when = when.Add(10 * time.Second)
		c.set(when)
	}
	for range 20 {
		interval()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, o)
	for range 10 {
		interval()
	}
	if n := len(s.known); n > maxBytes/quotaShare/minStackCost+10 {
		t.Errorf("%d stacks are in memory", n)
	}
	var stackBytes int64
	if err := filepath.WalkDir(filepath.Join(dir, "v1", "stacks"), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			info, _ := entry.Info()
			stackBytes += info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if stackBytes > maxBytes/quotaShare {
		t.Errorf("the stacks of a date take %d bytes", stackBytes)
	}
	var kept, refused, of, othersRefused int64
	visit(t, dir, false, func(stack string, row *SampleRow) {
		switch full := strings.Contains(stack, "history_full"); {
		case row.LossReason != "":
		case row.Comm != "bad" && full:
			othersRefused += row.Count
			of += row.Count
		case row.Comm != "bad":
			of += row.Count
		case full:
			refused += row.Count
		default:
			kept += row.Count
		}
	})
	t.Logf("the stacks take %d bytes; of the hostile %d kept, %d refused", stackBytes, kept, refused)
	if uint64(kept+refused) != hostileSamples || kept < 1000 || refused < 10_000 {
		t.Errorf("of the hostile process %d samples were kept, %d without their stack, of %d", kept, refused, hostileSamples)
	}
	if uint64(of) != others || othersRefused > 0 {
		t.Errorf("of the others %d of %d samples were kept, %d without their stack", of, others, othersRefused)
	}
	if stats := s.Stats(); stats.Limited == 0 || stats.Dropped[DropFailed] > 0 {
		t.Errorf("%+v", stats)
	}
	if n := strings.Count(log.String(), "not kept"); n != 2 || !strings.Contains(log.String(), "exe=/tmp/bad") { // by each of the two stores
		t.Errorf("it was said %d times:\n%s", n, log.String())
	}
	when = when.AddDate(0, 0, 1)
	before := s.Stats().Limited
	p := host.Interval(when, 10*time.Second)
	novelties(p, hostile, made, 1000, 20)
	if s.Export(p); s.Stats().Limited != before {
		t.Error("another date has no room")
	}
}
