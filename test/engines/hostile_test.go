package engines

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// hostileNames are what a process may call itself and its functions.
var hostileNames = []string{
	"quotes \"'`\\",
	"'; DROP TABLE samples; --",
	"control \x00\x01\x1b[31m\x7f\r\n\t\b",
	"c1 \u009b31m \u0085",
	"right to left \u202egnp.exe\u202c \u2066\u2069",
	"invalid \xff\xfe utf-8 \xc3(",
	"lines\u2028\u2029and\ufeffmarks",
	"comma,equals=\"x\",comm!=~",
	"../../../etc/passwd",
	"date=2026-01-01/host=other",
	"<script>alert(1)</script>",
	"${HOME} $(id) %s %n {{.}}",
	" leading and trailing ",
	"😀 é e\u0301",
}

const hostileHost = "a/b\x1b\"'\xff"

// kept is how a name is kept: Parquet's and pprof's strings are UTF-8.
func kept(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// Names that are meant to break something come through storage, the language of queries, pprof and DuckDB as they went in.
func TestHostileNames(t *testing.T) {
	names := append(slices.Clone(hostileNames), strings.Repeat("long \x00\"", 1<<20/7))
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir, Host: hostileHost, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	start := day(2).Add(5 * time.Hour)
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: 10 * time.Second, Period: periodNanos}
	for i, name := range names {
		l := location(name)
		l.Mapping = &profile.Mapping{Path: "/" + name, BuildID: "ff"}
		l.Lines[0].Function.File = name + ".c"
		n := int64(i + 1)
		p.Samples = append(p.Samples, profile.Sample{
			User:   &profile.Stack{Locations: []*profile.Location{l}, Root: true},
			Labels: &profile.Labels{PID: i + 1, Comm: name, Thread: name, Exe: "/" + name, Cgroup: "/" + name, ContainerID: name},
			Count:  n, Value: n * periodNanos,
		})
		p.Account.Taken += uint64(n)
	}
	p.Account.Exported = p.Account.Taken
	s.Export(p)
	eventually(t, "the interval is compacted", func() bool {
		files, err := store.Compacted(dir, s.Host())
		return err == nil && len(files) == 2
	})
	if s.Host() != kept(hostileHost) {
		t.Errorf("the host is kept as %q", s.Host())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	reader := store.NewReader(dir, slog.New(slog.DiscardHandler))
	for i, name := range names {
		want := int64(i + 1)
		short := fmt.Sprintf("%.40q", name)
		for label, value := range map[string]string{"comm": kept(name), "exe": "/" + kept(name), "container_id": kept(name)} {
			if len(value) > 1<<10 {
				continue // the language has a bound for a value; its pattern below finds it
			}
			condition, err := query.NewCondition(label, query.Equal, value)
			if err != nil {
				t.Fatalf("%s: %v", short, err)
			}
			// As text and back, as a URL or a flag brings it.
			q, err := query.Parse((&query.Query{Filter: query.Filter{condition}}).String())
			if err != nil {
				t.Errorf("%s does not come through the language: %v", short, err)
				continue
			}
			checkHostile(t, reader, q, short, name, want)
		}
		q, err := query.Parse(fmt.Sprintf("filter=pid=%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		checkHostile(t, reader, q, short, name, want)
	}

	checkHostileProgram(t, dir, start, names)

	db := openDuckDB(t)
	ask(t, db, with(t, documented(t, "fleet.md", "duckdb")["tables"], map[string]string{"root": "'" + dir + "'"}))
	for _, r := range ask(t, db, `SELECT pid, comm, thread, exe, cgroup, container_id, host, count,
		frames[1].function AS function, frames[1].file AS file, frames[1].module AS module, frames[1].kind AS kind FROM samples JOIN stacks USING (stack_id)`) {
		i := r.integer(t, "pid") - 1
		name := kept(names[i])
		for column, want := range map[string]string{
			"comm": name, "thread": name, "exe": "/" + name, "cgroup": "/" + name, "container_id": name, "function": name, "file": name + ".c", "module": "/" + name,
			"kind": "native", "host": s.Host(),
		} {
			if got := r[column]; got != want {
				t.Errorf("DuckDB: %s of %.40q is %.60q, want %.60q", column, names[i], got, want)
			}
		}
		if n := r.integer(t, "count"); n != i+1 {
			t.Errorf("DuckDB: %.40q has %d samples, want %d", names[i], n, i+1)
		}
		names[i] = ""
	}
	for _, name := range names {
		if name != "" {
			t.Errorf("DuckDB does not show %.40q", name)
		}
	}
}

// checkHostileProgram asks the program and an agent for each name: JSON and pprof have it as it is kept, a terminal is shown nothing that commands it.
func checkHostileProgram(t *testing.T, dir string, start time.Time, names []string) {
	t.Helper()
	binary, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (stdout []byte, stderr string) {
		t.Helper()
		cmd := exec.Command(binary, args...)
		var text strings.Builder
		cmd.Stderr = &text
		stdout, _ = cmd.Output() // what it says tells whether it failed
		return stdout, text.String()
	}
	harmless := func(what, text string) {
		t.Helper()
		for _, r := range text {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s: a terminal is shown %q: %.200q", what, r, text)
				return
			}
		}
	}
	a := startAgent(t, "--data-dir", dir)
	get := func(path string) []byte {
		t.Helper()
		response, err := http.Get(a.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%.100s: %s %v %.200s", path, response.Status, err, body)
		}
		return body
	}
	from, to := start.Format(time.RFC3339), start.Add(time.Minute).Format(time.RFC3339)
	for i, name := range names {
		short, want := fmt.Sprintf("%.40q", name), int64(i+1)
		filter := fmt.Sprintf("pid=%d", i+1)
		if len(name) < 1<<10 {
			condition, err := query.NewCondition("comm", query.Equal, kept(name))
			if err != nil {
				t.Fatalf("%s: %v", short, err)
			}
			filter = query.Filter{condition}.String()
		}
		asked := "from=" + from + "&to=" + to + "&filter=" + url.QueryEscape(filter)
		var top struct {
			Rows []struct {
				Name, Module string
				Self         struct{ Samples int64 }
			}
		}
		if err := json.Unmarshal(get("/api/v1/top?"+asked), &top); err != nil {
			t.Fatalf("%s: %v", short, err)
		}
		if len(top.Rows) != 1 || top.Rows[0].Name != kept(name) || top.Rows[0].Self.Samples != want {
			t.Errorf("%s: the agent's JSON has %.100v", short, top.Rows)
		}
		command := []string{"query", "--data-dir", dir, "--from", from, "--to", to, "--filter", filter}
		written, stderr := run(append(slices.Clone(command), "--format", "pprof")...)
		for what, content := range map[string][]byte{"the agent's download": get("/debug/pprof/profile?" + asked), "query's file": written} {
			p, err := pprof.Read(bytes.NewReader(content), "")
			if err != nil {
				t.Fatalf("%s: %s: %v %s", short, what, err, stderr)
			}
			if rows := flame.Top(p).Rows; len(rows) != 1 || rows[0].Name != kept(name) || rows[0].Self.Samples != want || p.Samples[0].Labels.Comm != kept(name) {
				t.Errorf("%s: %s has %.100v", short, what, rows)
			}
		}
		for _, more := range [][]string{{"top"}, {"tree"}, {"labels", "--by", "exe"}, {"series", "--by", "thread"}} {
			stdout, stderr := run(append(slices.Clone(command), append([]string{"--format"}, more...)...)...)
			if len(stdout) < 20 || stderr != "" {
				t.Errorf("%s: %s says %.200q %.200q", short, more[0], stdout, stderr)
			}
			harmless(short+" "+more[0], string(stdout))
		}
	}
	evil := filepath.Join(t.TempDir(), "evil\x1b[31m\u009b\u202e")
	for _, args := range [][]string{{"query", "--data-dir", evil}, {"diff", evil, evil}, {"query", "--filter", evil}, {evil}} {
		if _, stderr := run(args...); !strings.Contains(stderr, "evil") {
			t.Errorf("%q: %q", args, stderr)
		} else {
			harmless(args[0], stderr)
		}
	}
}

// checkHostile asks for the samples of one name, and follows them to the table of functions and through pprof.
func checkHostile(t *testing.T, reader *store.Reader, q query.Query, short, name string, want int64) {
	t.Helper()
	p, err := reader.Profile(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", short, err)
	}
	rows := flame.Top(p).Rows
	if len(rows) != 1 || rows[0].Name != kept(name) || rows[0].Self.Samples != want {
		t.Errorf("%s: asked by %.80s, %d functions, %.80v", short, q.String(), len(rows), rows)
	}
	var b bytes.Buffer
	if err := pprof.Write(&b, p); err != nil {
		t.Fatalf("%s: %v", short, err)
	}
	again, err := pprof.Read(&b, "")
	if err != nil {
		t.Fatalf("%s: pprof: %v", short, err)
	}
	if rows := flame.Top(again).Rows; len(rows) != 1 || rows[0].Name != kept(name) || rows[0].Self.Samples != want {
		t.Errorf("%s: through pprof, %d functions, %.80v", short, len(rows), rows)
	}
	l := again.Samples[0].Labels
	if l.Comm != kept(name) || l.Exe != "/"+kept(name) || l.ContainerID != kept(name) {
		t.Errorf("%s: the labels came through pprof as %.40q %.40q %.40q", short, l.Comm, l.Exe, l.ContainerID)
	}
}
