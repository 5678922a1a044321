package store

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// inlineRow is what a row would be without a table of stacks.
type inlineRow struct {
	SampleRow
	Frames []FrameRow `parquet:"frames,list"`
}

// BenchmarkLayout compares the two tables with one in which each row holds its stack: the bytes of a minute of a busy host, the time
// to write it, and that to find how often each function was at the top of a stack. Stacks of the table are those that the minute
// adds after an hour, so few; and those that the query reads are all of that hour.
func BenchmarkLayout(b *testing.B) {
	host, start := busyhost.New(busyhost.Options{}), time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	e, all := newEncoder(), make(map[int64]StackRow)
	encode := func(at time.Duration) (rows []SampleRow, fresh []StackRow) {
		rows = e.encode(host.Interval(start.Add(at), 10*time.Second), func(s *profile.Sample, id int64) int64 {
			if _, known := all[id]; !known {
				row := e.stacks.encode(s)
				all[id] = StackRow{id, row.Whole, slices.Clone(row.Frames)}
				fresh = append(fresh, all[id])
			}
			return id
		})
		return rows, fresh
	}
	for i := range 60 { // the hour before, at a sixth of its length: nearly all stacks
		encode(time.Duration(i) * 10 * time.Second)
	}
	var samples [][]SampleRow
	var added []StackRow
	for i := range 6 {
		rows, fresh := encode(time.Hour + time.Duration(i)*10*time.Second)
		samples = append(samples, append([]SampleRow(nil), rows...))
		added = append(added, fresh...)
	}
	inline := make([][]inlineRow, len(samples))
	for i, rows := range samples {
		for _, row := range rows {
			inline[i] = append(inline[i], inlineRow{row, all[row.StackID].Frames})
		}
	}
	var history []StackRow
	for _, row := range all {
		history = append(history, row)
	}
	var stacksFile bytes.Buffer
	if err := encodeRows(&stacksFile, newStackWriter(fastCompression), history); err != nil {
		b.Fatal(err)
	}
	b.Run("table", func(b *testing.B) {
		var size int
		var write, query time.Duration
		w, sw := newSampleWriter(fastCompression), newStackWriter(fastCompression)
		for b.Loop() {
			var files []*bytes.Buffer
			begun := time.Now()
			size = 0
			for _, rows := range samples {
				f := new(bytes.Buffer)
				if err := encodeRows(f, w, rows); err != nil {
					b.Fatal(err)
				}
				files, size = append(files, f), size+f.Len()
			}
			f := new(bytes.Buffer)
			if err := encodeRows(f, sw, added); err != nil {
				b.Fatal(err)
			}
			size += f.Len()
			write += time.Since(begun)
			begun = time.Now()
			leaves, top := make(map[int64]string), make(map[string]int64)
			eachRow[StackRow](b, stacksFile.Bytes(), func(row *StackRow) { leaves[row.StackID] = row.Frames[0].Function })
			for _, f := range files {
				eachRow[SampleRow](b, f.Bytes(), func(row *SampleRow) { top[leaves[row.StackID]] += row.Count })
			}
			query += time.Since(begun)
		}
		report(b, size, write, query)
	})
	b.Run("inline", func(b *testing.B) {
		var size int
		var write, query time.Duration
		w := parquet.NewGenericWriter[inlineRow](nil, writerOptions(fastCompression, maxStackRows)...)
		for b.Loop() {
			var files []*bytes.Buffer
			begun := time.Now()
			size = 0
			for _, rows := range inline {
				f := new(bytes.Buffer)
				if err := encodeRows(f, w, rows); err != nil {
					b.Fatal(err)
				}
				files, size = append(files, f), size+f.Len()
			}
			write += time.Since(begun)
			begun = time.Now()
			top := make(map[string]int64)
			for _, f := range files {
				eachRow[inlineRow](b, f.Bytes(), func(row *inlineRow) {
					if len(row.Frames) > 0 {
						top[row.Frames[0].Function] += row.Count
					}
				})
			}
			query += time.Since(begun)
		}
		report(b, size, write, query)
	})
}

func encodeRows[T any](out io.Writer, w *parquet.GenericWriter[T], rows []T) error {
	w.Reset(out)
	_, err := w.Write(rows)
	return errors.Join(err, w.Close())
}

func eachRow[T any](b *testing.B, file []byte, visit func(*T)) {
	b.Helper()
	r := parquet.NewGenericReader[T](bytes.NewReader(file))
	defer r.Close()
	rows := make([]T, 256)
	for {
		n, err := r.Read(rows)
		for i := range rows[:n] {
			visit(&rows[i])
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func report(b *testing.B, size int, write, query time.Duration) {
	b.ReportMetric(float64(size)/1e6, "MB/min")
	b.ReportMetric(write.Seconds()*1000/float64(b.N), "write-ms/min")
	b.ReportMetric(query.Seconds()*1000/float64(b.N), "query-ms/min")
}
