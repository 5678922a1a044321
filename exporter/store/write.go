package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"

	"github.com/pilotlight/pilotlight/exporter/durable"
)

// Of the writers. All compacted files of a table are written alike: what is compacted to a day is then copied as it is, but for older files.
const (
	// maxSampleRows and maxStackRows are in a row group at most: what a writer holds in memory.
	maxSampleRows = 2 << 20
	maxStackRows  = 8 << 10
	// intervalStackPage is how much of each column of an interval's stacks a writer holds before it becomes a page. There are eleven, with a value for
	// each frame and its levels: with the library's 256 KiB a page, which compaction writes for what compresses 3 % better, they took 8 MB.
	intervalStackPage = 64 << 10
)

// What is compacted stays, and is worth more time.
var (
	fastCompression = &codec{level: zstd.SpeedDefault}
	compression     = &codec{level: zstd.SpeedBetterCompression}
)

func writerOptions(c compress.Codec, maxRows int64) []parquet.WriterOption {
	return []parquet.WriterOption{
		parquet.Compression(c),
		parquet.MaxRowsPerRowGroup(maxRows),
		parquet.CreatedBy("pilotlight", strconv.Itoa(Version), ""),
		// In pages of version 1 the levels of lists are compressed with the values; uncompressed they are two fifths of a real host's stacks.
		parquet.DataPageVersion(1),
		// Sixteen bytes of a name tell pages apart as well as a megabyte.
		parquet.DataPageStatistics(false),
	}
}

func newSampleWriter(c compress.Codec, more ...parquet.WriterOption) *parquet.GenericWriter[SampleRow] {
	return parquet.NewGenericWriter[SampleRow](nil, append(writerOptions(c, maxSampleRows), more...)...)
}

func newStackWriter(c compress.Codec, more ...parquet.WriterOption) *parquet.GenericWriter[StackRow] {
	return parquet.NewGenericWriter[StackRow](nil, append(writerOptions(c, maxStackRows), more...)...)
}

// draft is a file that no reader takes for one yet.
type draft struct {
	*os.File
	dir, path string // path is the one that it is to have
}

// newDraft begins a file and the directories that it is in.
func newDraft(dir string, f *file) (*draft, error) {
	if err := makeDir(dir, f.dir()); err != nil {
		return nil, err
	}
	d := &draft{dir: filepath.Join(dir, f.dir()), path: filepath.Join(dir, f.path())}
	var err error
	d.File, err = os.OpenFile(filepath.Join(d.dir, "."+f.name()+tempSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// finish makes the content durable. The file has its temporary name still.
func (d *draft) finish() error {
	if err := appendSums(d.File); err != nil {
		return err
	}
	return d.Sync()
}

// publish gives a finished file its name, durably, and returns its size.
func (d *draft) publish() (int64, error) {
	info, err := d.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.Rename(d.Name(), d.path); err != nil {
		return 0, err
	}
	if err := durable.SyncDir(d.dir); err != nil {
		// Nobody is told that it is there, so it must not be.
		return 0, errors.Join(err, removeFile(d.path))
	}
	return info.Size(), d.Close()
}

// discard removes what was not published. It may be called after publish.
func (d *draft) discard() {
	_ = d.Close()
	_ = os.Remove(d.Name())
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
