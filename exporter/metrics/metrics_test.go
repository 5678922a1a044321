package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/upload"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/publish"
)

// source gives the counts that a test puts in, and counts how often it is asked.
type source struct {
	mu    sync.Mutex
	stats collect.Stats
	err   error
	asked atomic.Int64
}

func (s *source) Stats(context.Context) (collect.Stats, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats, s.err
}

func (s *source) set(stats collect.Stats, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats, s.err = stats, err
}

func newMetrics(t testing.TB, s Source) *Metrics {
	t.Helper()
	m, err := New(s, Options{Version: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func parse(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return families
}

// values are the series as Prometheus writes them: name, or name{label="value"}, to value.
func values(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	series := make(map[string]float64)
	for name, family := range parse(t, scrape(t, m)) {
		for _, metric := range family.Metric {
			var labels []string
			for _, l := range metric.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			series[key] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return series
}

func check(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, ok := got[name]; !ok || value != want[name] {
			t.Errorf("%s is %v (there: %v), not %v", name, value, ok, want[name])
		}
	}
}

// The metrics of the contract are there from the first scrape on, from 0, with every reason and no label beside it.
func TestFirstScrape(t *testing.T) {
	got := values(t, newMetrics(t, new(source)))
	want := map[string]float64{
		"pilotlight_samples_taken_total":                     0,
		"pilotlight_samples_exported_total":                  0,
		`pilotlight_process_cpu_seconds_total{comm="other"}`: 0,
	}
	for r := bpf.ReasonNone + 1; int(r) < bpf.ReasonCount; r++ {
		name := "pilotlight_samples_incomplete_total"
		switch {
		case slices.Contains(bpf.SampleReasons, r):
			name = "pilotlight_samples_lost_total"
		case slices.Contains(bpf.HistoryReasons, r):
			continue
		}
		want[fmt.Sprintf("%s{reason=%q}", name, r)] = 0
	}
	check(t, got, want)
	for _, name := range []string{"pilotlight_agent_rss_bytes", "pilotlight_agent_rss_anonymous_bytes", "pilotlight_agent_rss_file_bytes", "pilotlight_agent_goroutines"} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
}

// Names and help texts are what Prometheus's linter wants, and nothing is there that is not ours.
func TestLint(t *testing.T) {
	text := scrape(t, newMetrics(t, new(source)))
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for name := range parse(t, text) {
		if !strings.HasPrefix(name, "pilotlight_") {
			t.Errorf("metric %s", name)
		}
	}
	for _, noise := range []string{"otel_scope", "target_info"} {
		if strings.Contains(text, noise) {
			t.Errorf("%s in\n%s", noise, text)
		}
	}
}

// What the history did is shown, and 0 where there is none.
func TestHistory(t *testing.T) {
	want := map[string]float64{
		"pilotlight_history_intervals_total":                           1,
		"pilotlight_history_samples_total":                             2,
		`pilotlight_history_dropped_total{reason="disk_full"}`:         3,
		`pilotlight_history_dropped_total{reason="failed"}`:            0,
		`pilotlight_history_samples_dropped_total{reason="disk_low"}`:  4,
		`pilotlight_history_samples_dropped_total{reason="disk_full"}`: 0,
		"pilotlight_history_written_bytes_total":                       5,
		"pilotlight_history_compactions_total":                         6,
		"pilotlight_history_removed_total":                             7,
		"pilotlight_history_damaged_total":                             8,
		`pilotlight_history_work_seconds_total{on="intervals"}`:        9,
		`pilotlight_history_work_seconds_total{on="compaction"}`:       10,
		"pilotlight_history_size_bytes":                                11,
		"pilotlight_history_files":                                     12,
		`pilotlight_history_stacks_lost_total{reason="history_full"}`:  13,
		"pilotlight_history_failures_total":                            14,
	}
	m, err := New(new(source), Options{History: func() store.Stats {
		return store.Stats{
			Intervals: 1, Samples: 2, Dropped: map[string]uint64{store.DropDiskFull: 3}, DroppedSamples: map[string]uint64{store.DropDiskLow: 4},
			Written: 5, Compactions: 6, Removed: 7, Damaged: 8, WriteTime: 9 * time.Second, CompactTime: 10 * time.Second, Bytes: 11, Files: 12,
			Limited: 13, Failures: 14,
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, values(t, m), want)
	for name := range want {
		want[name] = 0
	}
	check(t, values(t, newMetrics(t, new(source))), want)
}

// What the upload did is shown, and 0 where there is none.
func TestUpload(t *testing.T) {
	want := map[string]float64{
		"pilotlight_upload_sent_total":               1,
		"pilotlight_upload_sent_size_bytes_total":    2,
		"pilotlight_upload_failures_total":           3,
		"pilotlight_upload_removed_total":            4,
		"pilotlight_upload_dropped_total":            5,
		"pilotlight_upload_damaged_total":            9,
		"pilotlight_upload_dropped_size_bytes_total": 6,
		"pilotlight_upload_pending":                  7,
		"pilotlight_upload_pending_size_bytes":       8,
	}
	m, err := New(new(source), Options{Upload: func() upload.Stats {
		return upload.Stats{Files: 1, Bytes: 2, Failures: 3, Removed: 4, DroppedFiles: 5, DroppedBytes: 6, PendingFiles: 7, PendingBytes: 8, Damaged: 9}
	}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, values(t, m), want)
	for name := range want {
		want[name] = 0
	}
	check(t, values(t, newMetrics(t, new(source))), want)
}

// Each count of the profiler is a series of its own. Every value is another one, so that none can be taken for its neighbour.
func TestValues(t *testing.T) {
	s := new(source)
	s.set(collect.Stats{
		BPF: bpf.Counters{
			Seen: 1, FilteredTarget: 2, FilteredCgroup: 3, FilteredSelf: 4, Idle: 5, Taken: 6, Submitted: 7, LostRingFull: 8,
			User:        bpf.StackCounters{Fresh: 9, Known: 10, None: 11, Unreadable: 12, MapFull: 13, Truncated: 14, Copied: 49, Joined: 59},
			Kernel:      bpf.StackCounters{Fresh: 15, Known: 16, None: 17, Unreadable: 18, MapFull: 19, Truncated: 20, Copied: 50, Joined: 60},
			Span:        bpf.SpanCounters{Taken: 65, None: 66, Unreadable: 67, Refused: 68},
			TargetAdded: 21, TargetMapFull: 22, RunTimeNs: 2_500_000_000, FilteredNamespace: 48,
		},
		Fired: 23, Read: 24, Filtered: 25, Relabeled: 66, Exported: 26, BadRecords: 27, BadCopies: 63, SpansDropped: 69,
		Naming:    collect.NamerStats{StacksNew: 28, StacksKnown: 29, StacksAgain: 30, StacksLost: 31, StacksCopied: 51, LocationsNew: 32, LocationsHit: 33, NameNanos: 500_000_000},
		Files:     process.FileStats{Opened: 34, Read: 35, Failed: 36, ImageBytes: 37},
		Table:     process.Stats{RecordsLost: 38, Rereads: 39, ForksSeen: 40, ExecsSeen: 41, MappingsSeen: 42, Forgotten: 64, IdentitiesRefused: 65},
		Unwind:    publish.Stats{Compiled: 52, Recompiled: 61, Withdrawn: 62, Uncompiled: 53, Evicted: 54, Refused: 55, Rows: 56, Processes: 57, ArenaBytes: 58},
		Processes: 43, Windows: 44, MapBytes: 45, KernelNameBytes: 46, Rounds: 47,
	}, nil)
	check(t, values(t, newMetrics(t, s)), map[string]float64{
		"pilotlight_samples_seen_total":                            1,
		`pilotlight_samples_filtered_total{cause="target"}`:        2,
		`pilotlight_samples_filtered_total{cause="cgroup"}`:        3,
		`pilotlight_samples_filtered_total{cause="self"}`:          4,
		`pilotlight_samples_filtered_total{cause="namespace"}`:     48,
		"pilotlight_samples_idle_total":                            5,
		"pilotlight_samples_taken_total":                           6,
		`pilotlight_samples_lost_total{reason="ring_full"}`:        8,
		`pilotlight_stacks_new_total{side="user"}`:                 9,
		`pilotlight_stacks_known_total{side="user"}`:               10,
		`pilotlight_stacks_absent_total{side="user"}`:              11,
		`pilotlight_stacks_lost_total{reason="user_unreadable"}`:   12,
		`pilotlight_stacks_truncated_total{side="user"}`:           14,
		`pilotlight_stacks_new_total{side="kernel"}`:               15,
		`pilotlight_stacks_known_total{side="kernel"}`:             16,
		`pilotlight_stacks_absent_total{side="kernel"}`:            17,
		`pilotlight_stacks_lost_total{reason="kernel_unreadable"}`: 18,
		`pilotlight_stacks_lost_total{reason="stack_map_full"}`:    13 + 19,
		`pilotlight_stacks_truncated_total{side="kernel"}`:         20,
		`pilotlight_stacks_copied_total{side="user"}`:              49,
		`pilotlight_stacks_copied_total{side="kernel"}`:            50,
		`pilotlight_stacks_joined_total{side="user"}`:              59,
		`pilotlight_stacks_joined_total{side="kernel"}`:            60,
		`pilotlight_samples_spans_total{result="taken"}`:           65,
		`pilotlight_samples_spans_total{result="none"}`:            66,
		`pilotlight_samples_spans_total{result="unreadable"}`:      67,
		`pilotlight_samples_spans_total{result="refused"}`:         68,
		`pilotlight_samples_spans_total{result="dropped"}`:         69,
		`pilotlight_naming_stacks_total{result="copied"}`:          51,
		"pilotlight_unwind_tables_compiled_total":                  52,
		"pilotlight_unwind_tables_recompiled_total":                61,
		"pilotlight_unwind_processes_withdrawn_total":              62,
		"pilotlight_unwind_tables_failed_total":                    53,
		"pilotlight_unwind_tables_evicted_total":                   54,
		"pilotlight_unwind_refused_total":                          55,
		"pilotlight_unwind_rows":                                   56,
		"pilotlight_unwind_processes":                              57,
		"pilotlight_unwind_arena_bytes":                            58,
		"pilotlight_targets_added_total":                           21,
		"pilotlight_targets_refused_total":                         22,
		"pilotlight_bpf_run_seconds_total":                         2.5,
		"pilotlight_bpf_runs_total":                                1,
		"pilotlight_events_fired_total":                            23,
		"pilotlight_samples_read_total":                            24,
		`pilotlight_samples_filtered_total{cause="comm"}`:          25,
		`pilotlight_samples_filtered_total{cause="relabel"}`:       66,
		"pilotlight_samples_exported_total":                        26,
		`pilotlight_samples_lost_total{reason="bad_record"}`:       27,
		`pilotlight_stacks_lost_total{reason="bad_record"}`:        63,
		`pilotlight_naming_stacks_total{result="new"}`:             28,
		`pilotlight_naming_stacks_total{result="known"}`:           29,
		`pilotlight_naming_stacks_total{result="again"}`:           30,
		`pilotlight_stacks_lost_total{reason="stack_evicted"}`:     31,
		"pilotlight_location_cache_misses_total":                   32,
		"pilotlight_location_cache_hits_total":                     33,
		"pilotlight_naming_seconds_total":                          0.5,
		"pilotlight_files_opened_total":                            34,
		"pilotlight_files_read_total":                              35,
		"pilotlight_files_failed_total":                            36,
		`pilotlight_symbol_tables_bytes{of="files"}`:               37,
		"pilotlight_sideband_records_lost_total":                   38,
		"pilotlight_process_maps_rereads_total":                    39,
		"pilotlight_process_maps_forgotten_total":                  64,
		"pilotlight_identities_refused_total":                      65,
		"pilotlight_sideband_forks_total":                          40,
		"pilotlight_sideband_execs_total":                          41,
		"pilotlight_sideband_mappings_total":                       42,
		"pilotlight_processes_tracked":                             43,
		"pilotlight_profiles_open":                                 44,
		"pilotlight_bpf_maps_bytes":                                45,
		`pilotlight_symbol_tables_bytes{of="kernel"}`:              46,
		"pilotlight_collector_rounds_total":                        47,
		"pilotlight_stats_failures_total":                          0,
	})
}

func TestOneSnapshotPerScrape(t *testing.T) {
	s := new(source)
	m := newMetrics(t, s)
	for i := int64(1); i <= 3; i++ {
		scrape(t, m)
		if n := s.asked.Load(); n != i {
			t.Fatalf("%d scrapes asked the source %d times", i, n)
		}
	}
}

// A source that does not answer must not look like a restart: its last counts stand.
func TestSourceFails(t *testing.T) {
	s := new(source)
	m := newMetrics(t, s)
	s.set(collect.Stats{Exported: 5}, nil)
	check(t, values(t, m), map[string]float64{"pilotlight_samples_exported_total": 5, "pilotlight_stats_failures_total": 0})
	s.set(collect.Stats{}, errors.New("no answer"))
	check(t, values(t, m), map[string]float64{"pilotlight_samples_exported_total": 5, "pilotlight_stats_failures_total": 1})
}

func cpuProfile(samples ...profile.Sample) *profile.Profile {
	return &profile.Profile{Type: profile.TypeCPU, Samples: samples}
}

func sampleOf(comm string, seconds float64) profile.Sample {
	return profile.Sample{Labels: &profile.Labels{Comm: comm, Exe: "/bin/" + comm}, Count: 1, Value: int64(seconds * 1e9)}
}

func TestProcessCPU(t *testing.T) {
	m := newMetrics(t, new(source))
	kworker := func(comm string) profile.Sample {
		return profile.Sample{Labels: &profile.Labels{Comm: comm}, Count: 1, Value: 1e9}
	}
	m.Export(cpuProfile(sampleOf("nginx", 1.5), sampleOf("nginx", 0.25), sampleOf("a/b", 1),
		kworker("kworker/0:1"), kworker("kworker/7:2-events"), sampleOf("\xff\"\n\\", 2), sampleOf("", 3)))
	m.Export(cpuProfile(sampleOf("nginx", 1)))
	m.Export(&profile.Profile{Type: profile.TypeCycles, Samples: []profile.Sample{sampleOf("nginx", 7)}}) // no time
	check(t, values(t, m), map[string]float64{
		`pilotlight_process_cpu_seconds_total{comm="nginx"}`:     2.75,
		`pilotlight_process_cpu_seconds_total{comm="a/b"}`:       1,
		`pilotlight_process_cpu_seconds_total{comm="kworker"}`:   2,
		`pilotlight_process_cpu_seconds_total{comm="�\"\n\\"}`:   2,
		`pilotlight_process_cpu_seconds_total{comm="[unknown]"}`: 3,
		`pilotlight_process_cpu_seconds_total{comm="other"}`:     0,
	})
}

// Whatever processes call themselves, the series are bounded, none goes down, and no time is left out.
func TestProcessCPUIsBounded(t *testing.T) {
	m := newMetrics(t, new(source))
	var last map[string]float64
	for interval := range 5 {
		p := cpuProfile(sampleOf("steady", 1))
		for i := range maxNames {
			p.Samples = append(p.Samples, sampleOf(fmt.Sprintf("job-%d-%d", interval, i), 0.5))
		}
		m.Export(p)
		var sum float64
		series := 0
		now := values(t, m)
		for name, value := range now {
			if strings.HasPrefix(name, "pilotlight_process_cpu_") {
				sum += value
				series++
			}
			if strings.HasSuffix(strings.SplitN(name, "{", 2)[0], "_total") && value < last[name] {
				t.Errorf("%s went from %v to %v", name, last[name], value)
			}
		}
		if want := float64(interval+1) * (1 + maxNames*0.5); sum != want {
			t.Errorf("after %d intervals: %v s of %v", interval+1, sum, want)
		}
		if series > maxNames+1 {
			t.Errorf("%d series", series)
		}
		last = now
	}
	check(t, last, map[string]float64{`pilotlight_process_cpu_seconds_total{comm="steady"}`: 5})
}

func TestIncomplete(t *testing.T) {
	line := []profile.Line{{Function: &profile.Function{Name: "f"}}}
	named, unnamed := &profile.Location{Lines: line}, &profile.Location{Lines: line, Unnamed: bpf.ReasonNoSymbol.String()}
	labels := &profile.Labels{Comm: "x"}
	m := newMetrics(t, new(source))
	m.Export(cpuProfile(
		profile.Sample{Labels: labels, Count: 1, User: &profile.Stack{Locations: []*profile.Location{named}}},
		profile.Sample{Labels: labels, Count: 2, User: &profile.Stack{Locations: []*profile.Location{unnamed, named, unnamed}}},
		profile.Sample{Labels: labels, Count: 4, Kernel: &profile.Stack{Locations: []*profile.Location{unnamed}},
			User: &profile.Stack{Locations: []*profile.Location{unnamed}, Truncated: bpf.ReasonUnmappedPC.String()}},
	))
	check(t, values(t, m), map[string]float64{
		`pilotlight_samples_incomplete_total{reason="no_symbol"}`:   6, // once for a sample
		`pilotlight_samples_incomplete_total{reason="unmapped_pc"}`: 4,
		`pilotlight_samples_incomplete_total{reason="max_depth"}`:   0,
	})
}

func TestConcurrentUse(t *testing.T) {
	m := newMetrics(t, new(source))
	var wait sync.WaitGroup
	for range maxScrapes {
		wait.Go(func() {
			for range 10 {
				scrape(t, m)
				m.Export(cpuProfile(sampleOf("x", 1)))
			}
		})
	}
	wait.Wait()
	check(t, values(t, m), map[string]float64{`pilotlight_process_cpu_seconds_total{comm="x"}`: 10 * maxScrapes})
}

func TestShutdownTwice(t *testing.T) {
	m := newMetrics(t, new(source)) // and a third time by its Cleanup
	for range 2 {
		if err := m.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
	scrape(t, m)
}

func TestParseStatus(t *testing.T) {
	var u Usage
	err := u.parseStatus(strings.NewReader("Name:\tpilotlight\nVmRSS:\t   41320 kB\nRssAnon:\t   21004 kB\nRssFile:\t   20316 kB\n"))
	if want := (Usage{RSS: 41320 << 10, RSSAnonymous: 21004 << 10, RSSFile: 20316 << 10}); err != nil || u != want {
		t.Errorf("%+v, %v, not %+v", u, err, want)
	}
	if err := u.parseStatus(strings.NewReader("VmRSS:\tmany kB\n")); err == nil {
		t.Error("a number that is none was taken")
	}
}

func TestReadUsage(t *testing.T) {
	u, err := ReadUsage()
	if err != nil || u.User+u.System <= 0 || u.RSS <= 0 || u.RSSAnonymous <= 0 || u.RSS < u.RSSAnonymous+u.RSSFile {
		t.Errorf("%+v, %v", u, err)
	}
}

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// docs/metrics.md lists every metric, with the names that OTLP and Prometheus have for it: go test ./exporter/metrics -run Docs -update
func TestDocs(t *testing.T) {
	const path = "../../docs/metrics.md"
	var table strings.Builder
	row := func(kind, name, unit, help string) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s | %s |\n", name, prometheusName(kind, name, unit), unit, help)
	}
	table.WriteString("| OTLP | Prometheus | unit | what it says |\n| --- | --- | --- | --- |\n")
	for _, i := range counters {
		row("counter", i.name, i.unit, i.help)
	}
	for _, i := range times {
		row("counter", i.name, i.unit, i.help)
	}
	for _, i := range gauges {
		row("gauge", i.name, i.unit, i.help)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- metrics -->\n", "<!-- end -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	want := head + begin + table.String() + end + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not up to date: go test ./exporter/metrics -run Docs -update", path)
	}
	for name := range defaultGroups {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s does not tell of the group %s", path, name)
		}
	}
	// The names of the table are those that Prometheus sees.
	m := newMetrics(t, new(source))
	m.Export(cpuProfile(sampleOf("a", 1)))
	for series := range values(t, m) {
		name, _, _ := strings.Cut(series, "{")
		if !strings.Contains(table.String(), "`"+name+"`") {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// prometheusName is what the translation makes of a name.
func prometheusName(kind, name, unit string) string {
	name = strings.ReplaceAll(name, ".", "_")
	if suffix := map[string]string{"s": "seconds", "By": "bytes"}[unit]; suffix != "" && !strings.HasSuffix(name, "_"+suffix) {
		name += "_" + suffix
	}
	if kind == "counter" && !strings.HasSuffix(name, "_total") {
		name += "_total"
	}
	return name
}
