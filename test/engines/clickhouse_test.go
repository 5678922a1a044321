package engines

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/upload"
)

// askClickHouse runs statements in a ClickHouse of its own (chdb, which test/setup.sh installs), and gives what the last one says.
func askClickHouse(t *testing.T, statements ...string) []row {
	t.Helper()
	modules, err := filepath.Abs("../../build/clickhouse/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("%v: test/setup.sh installs it", err)
	}
	cmd := exec.Command("node", "clickhouse/ask.js")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = strings.NewReader(strings.Join(statements, "\n---\n"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stderr.Bytes(), strings.Join(statements, ";\n"))
	}
	var result []row
	lines := bufio.NewScanner(&stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r := make(row)
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		if hour, ok := r["hour"].(string); ok {
			if r["hour"], err = time.Parse(time.DateTime, hour); err != nil {
				t.Fatal(err)
			}
		}
		result = append(result, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return result
}

// The history of two hosts, uploaded to one bucket, is one table: DuckDB and ClickHouse, asked as docs/fleet.md says, find
// in the bucket what was sampled, to the sample.
func TestFleetInABucket(t *testing.T) {
	dir, want := fleet(t)
	s := startServer(t)
	for _, host := range []string{"web1", "1234"} {
		u, _ := startUpload(t, s, &dataDir{t: t, path: dir}, func(o *upload.Options) { o.Host = host })
		eventually(t, host+" is uploaded", func() bool { return u.Stats().Files > 0 && u.Stats().PendingFiles == 0 })
		u.Close()
	}
	hot := sum(want.self, func(p place) (place, bool) {
		return place{function: p.function}, p.hour.Truncate(24 * time.Hour).Equal(day(2))
	})

	// The server keeps objects as files.
	duck := documented(t, "fleet.md", "duckdb")
	db := openDuckDB(t)
	ask(t, db, with(t, duck["tables"], map[string]string{"root": "'" + filepath.Join(s.dir, bucket, s3Prefix) + "'"}))
	compare(t, "DuckDB", counts(t, ask(t, db, with(t, duck["hot"], map[string]string{"day": date(day(2))})), "samples"), hot)

	t.Run("ClickHouse", func(t *testing.T) {
		if os.Getenv("PILOTLIGHT_LONG") == "" {
			t.Skip("chdb takes 540 MB: make test-long fetches it")
		}
		house := documented(t, "fleet.md", "clickhouse")
		here := strings.NewReplacer(
			"https://profiles.s3.amazonaws.com/prod", s.endpoint()+"/"+bucket+"/"+strings.TrimSuffix(s3Prefix, "/"),
			"'KEY'", "'"+accessKey+"'", "'SECRET'", "'"+secretKey+"'",
			"date = '2026-11-23'", "date = '"+day(2).Format(time.DateOnly)+"'", "comm = 'nginx'", "comm = 'redis-server'")
		for name, block := range house {
			var statements []string
			for statement := range strings.SplitSeq(here.Replace(block), ";\n") {
				if statement = strings.TrimSpace(statement); statement != "" {
					statements = append(statements, statement)
				}
			}
			switch name {
			case "hot":
				// The reader of before 25.8 is Arrow's.
				for _, reader := range []int{0, 1} {
					set := fmt.Sprintf("SET input_format_parquet_use_native_reader_v3 = %d", reader)
					compare(t, set, counts(t, askClickHouse(t, append([]string{set}, statements...)...), "samples"), hot)
				}
			case "copy":
				compare(t, "copy", counts(t, askClickHouse(t, statements...), "samples"), sum(want.self, func(p place) (place, bool) {
					return place{host: p.host, hour: p.hour}, p.comm == "redis-server" && compacted(p)
				}))
			default:
				t.Errorf("the block %s of docs/fleet.md is not tested", name)
			}
		}
		if len(house) != 2 {
			t.Errorf("docs/fleet.md has %d blocks for ClickHouse", len(house))
		}
	})
}
