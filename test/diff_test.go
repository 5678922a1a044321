// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Two ranges of a history, with what is in them known to the sample; a filter leaves the other process out.
func TestDiffOfHistory(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir, Host: "box", MaxBytes: 1 << 30, MaxAge: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Truncate(time.Second).Add(-10 * time.Minute)
	main := &profile.Location{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "main"}}}}
	app, other := &profile.Labels{PID: 7, Comm: "app"}, &profile.Labels{PID: 8, Comm: "other"}
	stack := func(name string) *profile.Stack {
		leaf := &profile.Location{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: name}}}}
		return &profile.Stack{Locations: []*profile.Location{leaf, main}}
	}
	export := func(at time.Duration, grown int64) {
		const period = 10_000_000
		p := &profile.Profile{Type: profile.TypeCPU, Start: begin.Add(at), Duration: 10 * time.Second, Period: period}
		for _, x := range []struct {
			name   string
			labels *profile.Labels
			count  int64
		}{{"grown", app, grown}, {"same", app, 100}, {"noise", other, 1000}} {
			p.Samples = append(p.Samples, profile.Sample{User: stack(x.name), Labels: x.labels, Count: x.count, Value: x.count * period})
			p.Account.Taken += uint64(x.count)
		}
		p.Account.Exported = p.Account.Taken
		s.Export(p)
	}
	export(0, 100)
	export(10*time.Second, 100)
	export(60*time.Second, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) string { return begin.Add(d).UTC().Format(time.RFC3339) }
	r := run(t, "diff", "--data-dir", dir, "--filter", `comm="app"`, "--by", "time", "--format", "json",
		at(0)+".."+at(20*time.Second), at(60*time.Second)+".."+at(70*time.Second))
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	var d flame.Difference
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		t.Fatal(err)
	}
	if d.Before.Samples != 400 || d.After.Samples != 400 || d.Before.Duration != 20*time.Second || d.After.Duration != 10*time.Second || len(d.Functions) != 3 {
		t.Fatalf("%+v", d)
	}
	// 200 samples of 10 ms in 20 s are a tenth of a CPU; 300 in 10 s are three tenths.
	grown := d.Functions[0]
	if got := fmt.Sprintf("%s %.1f %.1f %v", grown.Name, grown.Self.BeforePart/1e9, grown.Self.AfterPart/1e9, grown.Self.Significant); got != "grown 0.1 0.3 true" {
		t.Errorf("%s", got)
	}
	// Back from now, which a dash begins.
	if r := run(t, "diff", "--data-dir", dir, "-11m..-9m30s", "-9m30s..now"); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}
