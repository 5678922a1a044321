package engines

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
)

// documented is the SQL that a page of docs prints for an engine, by the name in its first line.
func documented(t *testing.T, page, engine string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	for _, block := range strings.Split(string(text), "```sql\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		header, body, _ := strings.Cut(block, "\n")
		of, name, ok := strings.Cut(strings.TrimPrefix(header, "-- "), ": ")
		if !ok || blocks[name] != "" && of == engine {
			t.Fatalf("docs/%s: %q does not name an SQL block", page, header)
		}
		if of == engine {
			blocks[name] = body
		}
	}
	return blocks
}

// with replaces what a block sets variables to.
func with(t *testing.T, block string, variables map[string]string) string {
	t.Helper()
	for name, value := range variables {
		set := regexp.MustCompile(`(?m)^SET VARIABLE ` + name + ` = .*;$`)
		if !set.MatchString(block) {
			t.Fatalf("the block does not set %s:\n%s", name, block)
		}
		block = set.ReplaceAllLiteralString(block, "SET VARIABLE "+name+" = "+value+";")
	}
	return block
}

func date(day time.Time) string { return "DATE '" + day.Format(time.DateOnly) + "'" }

// row is what a query says of a place.
type row map[string]any

func (r row) place() (p place) {
	p.host, _ = r["host"].(string)
	p.comm, _ = r["comm"].(string)
	p.function, _ = r["function"].(string)
	if hour, ok := r["hour"].(time.Time); ok {
		p.hour = hour.UTC()
	}
	if minute, ok := r["minute"].(time.Time); ok {
		p.minute = minute.UTC()
	}
	return p
}

// integer reads a count, which DuckDB gives as one of several types.
func (r row) integer(t *testing.T, column string) int64 {
	t.Helper()
	if r[column] == nil {
		return 0 // a sum of nothing
	}
	var n int64
	if _, err := fmt.Sscan(fmt.Sprint(r[column]), &n); err != nil {
		t.Fatalf("%s is %v", column, r[column])
	}
	return n
}

func openDuckDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1) // variables are the connection's
	t.Cleanup(func() { db.Close() })
	return db
}

// ask runs statements, and gives what the last one says.
func ask(t *testing.T, db *sql.DB, statements string) []row {
	t.Helper()
	rows, err := db.Query(statements)
	if err != nil {
		t.Fatalf("%v\n%s", err, statements)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var result []row
	for rows.Next() {
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		r := make(row)
		for i, c := range columns {
			r[c] = values[i]
		}
		result = append(result, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v\n%s", err, statements)
	}
	return result
}

// counts collects a column by place.
func counts(t *testing.T, rows []row, column string) map[place]int64 {
	t.Helper()
	c := make(map[place]int64)
	for _, r := range rows {
		p := r.place()
		if _, twice := c[p]; twice {
			t.Errorf("%+v is there twice", p)
		}
		if n := r.integer(t, column); n != 0 {
			c[p] = n
		}
	}
	return c
}

func compare(t *testing.T, what string, got, want map[place]int64) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: nothing is expected", what)
	}
	if maps.Equal(got, want) {
		return
	}
	for p, n := range want {
		if got[p] != n {
			t.Errorf("%s: %+v has %d samples, want %d", what, p, got[p], n)
		}
	}
	for p, n := range got {
		if want[p] == 0 {
			t.Errorf("%s: %+v has %d samples, want none", what, p, n)
		}
	}
}

// What docs/fleet.md tells people to ask DuckDB gives the samples that were sent, to the sample.
func TestDuckDB(t *testing.T) {
	dir, want := fleet(t)
	blocks := documented(t, "fleet.md", "duckdb")
	db := openDuckDB(t)
	run := func(name string, variables map[string]string) []row {
		block, ok := blocks[name]
		if !ok {
			t.Fatalf("docs/fleet.md has no block %s", name)
		}
		delete(blocks, name)
		return ask(t, db, with(t, block, variables))
	}
	root := map[string]string{"root": "'" + dir + "'"}
	run("tables", root)

	compare(t, "hot", counts(t, run("hot", map[string]string{"day": date(day(2))}), "samples"),
		sum(want.self, func(p place) (place, bool) {
			return place{function: p.function}, p.hour.Truncate(24 * time.Hour).Equal(day(2))
		}))

	byHour := run("by_hour", nil)
	past := func(p place) (place, bool) { return p, compacted(p) }
	compare(t, "by hour, self", counts(t, byHour, "self"), sum(want.self, past))
	compare(t, "by hour, total", counts(t, byHour, "total"), sum(want.total, past))

	compareWithQueries(t, dir, byHour)

	overTime := run("over_time", map[string]string{"process": "'redis-server'"})
	compare(t, "over time", counts(t, overTime, "samples"), sum(want.self, func(p place) (place, bool) {
		return place{host: p.host, hour: p.hour}, p.comm == "redis-server" && compacted(p)
	}))
	for _, r := range overTime {
		if cpus, n := r["cpus"].(float64), r.integer(t, "samples"); math.Abs(cpus-float64(n)*periodNanos/3600e9) > 1e-9 {
			t.Errorf("%d samples are said to be %g CPUs", n, cpus)
		}
	}

	// Samples count in the minute in which their interval began.
	byMinute := run("by_minute", map[string]string{"process": "'redis-server'", "day": date(day(3))})
	compare(t, "by minute", counts(t, byMinute, "samples"), sum(want.minutes, func(p place) (place, bool) {
		return place{host: p.host, minute: p.minute}, p.comm == "redis-server" && p.minute.Truncate(24*time.Hour).Equal(day(3))
	}))

	compareDays(t, run("compare", map[string]string{"before": date(day(3)), "after": date(day(2))}), want)

	looks := run("profile", nil)
	if len(looks) != 5 {
		t.Errorf("the view of both shows %d rows", len(looks))
	}
	for _, r := range looks {
		if !strings.HasSuffix(r["stack"].(string), " < main < [truncated: unmapped pc]") {
			t.Errorf("a stack that is not whole: %s", r["stack"])
		}
	}

	lost := func(p place) (place, bool) { return place{host: p.host}, compacted(p) }
	compare(t, "lost", counts(t, run("lost", nil), "samples"), sum(want.lost, lost))

	// In the directory of a host the rest is there too; what a crash left of a compaction does not count.
	copyFile(t, filepath.Join(dir, "v1/samples/resolution=1h/host=web1/date="+day(3).Format(time.DateOnly)), day(3).Format("20060102")+"T03.parquet")
	var all []row
	for _, r := range run("directory", root) {
		all = append(all, row{"host": r["host"], "function": r["resolution"], "samples": r["samples"]})
	}
	compare(t, "directory", counts(t, all, "samples"), sum(want.self, func(p place) (place, bool) {
		if compacted(p) {
			return place{host: p.host, function: "1h"}, true
		}
		return place{host: p.host, function: "10s"}, true
	}))
	for name := range blocks {
		t.Errorf("the block %s of docs/fleet.md is not tested", name)
	}
}

// compareWithQueries has the program answer the same question: the functions of each process in each hour.
func compareWithQueries(t *testing.T, dir string, byHour []row) {
	t.Helper()
	binary, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	keep := func(p place) (place, bool) { p.host = ""; return p, true } // its answers are of all hosts
	wantSelf, wantTotal := sum(counts(t, byHour, "self"), keep), sum(counts(t, byHour, "total"), keep)
	self, total := make(map[place]int64), make(map[place]int64)
	asked := make(map[place]bool)
	for p := range wantTotal {
		p.function = ""
		if asked[p] {
			continue
		}
		asked[p] = true
		out, err := exec.Command(binary, "query", "--data-dir", dir, "--format", "json", "--filter", fmt.Sprintf("comm=%q", p.comm),
			"--from", p.hour.Format(time.RFC3339), "--to", p.hour.Add(time.Hour).Format(time.RFC3339)).Output()
		if err != nil {
			t.Fatalf("query: %v", err)
		}
		var tree struct{ Root node }
		if err := json.Unmarshal(out, &tree); err != nil {
			t.Fatalf("query: %v\n%.1000s", err, out)
		}
		tree.Root.add(p, nil, self, total)
	}
	compare(t, "query, self", self, wantSelf)
	compare(t, "query, total", total, wantTotal)
}

// node is one of the tree that query writes as JSON.
type node struct {
	Name        string
	Self, Total struct{ Samples int64 }
	Children    []node
}

// add adds up what is below a node by function: total of the outermost calls alone.
func (n *node) add(at place, callers []string, self, total map[place]int64) {
	for i := range n.Children {
		c := &n.Children[i]
		at.function = c.Name
		if c.Self.Samples > 0 {
			self[at] += c.Self.Samples
		}
		if !slices.Contains(callers, c.Name) {
			total[at] += c.Total.Samples
		}
		c.add(at, append(callers, c.Name), self, total)
	}
}

// compareDays checks the two counts, and the measure of what chance does.
func compareDays(t *testing.T, rows []row, want *expected) {
	t.Helper()
	of := func(d time.Time) map[place]int64 {
		return sum(want.self, func(p place) (place, bool) {
			return place{function: p.function}, p.hour.Truncate(24 * time.Hour).Equal(d)
		})
	}
	before, after := of(day(3)), of(day(2))
	compare(t, "before", counts(t, rows, "before"), before)
	compare(t, "after", counts(t, rows, "after"), after)
	total := func(counts map[place]int64) (n float64) {
		for _, c := range counts {
			n += float64(c)
		}
		return n
	}
	nb, na := total(before), total(after)
	for _, r := range rows {
		b, a := float64(before[r.place()])/nb, float64(after[r.place()])/na
		pooled := (b*nb + a*na) / (nb + na)
		z := (a - b) / math.Sqrt(pooled*(1-pooled)*(1/nb+1/na))
		if math.Abs(z-r["z"].(float64)) > 1e-6 || math.Abs(100*(a-b)-r["points"].(float64)) > 1e-9 {
			t.Errorf("%v: want %g points, z %g", r, 100*(a-b), z)
		}
	}
}

// copyFile copies the only file of a directory to another name there.
func copyFile(t *testing.T, dir, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s holds %v, %v", dir, files, err)
	}
	from, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}
