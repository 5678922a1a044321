package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/parquet-go/parquet-go"
)

// The checksums of a file stand between its data and Parquet's footer, where readers of Parquet do not look:
//
//	PAR1 | column chunks, indexes | sums | footer | footer's length | PAR1
//
//	sums: CRC-32C of each block of 16 KiB before them, 4 bytes each, the last block is shorter
//	      CRC-32C of all after the sums: footer, length and magic
//	      length of what stands before the sums, 8 bytes
//	      CRC-32C of the sums until here
//	      "PLSUM001"
//
// Parquet has checksums for pages alone: what a flipped bit in a page's header or in the footer makes of the numbers, nobody would see.
const (
	checkedBlock = 16 << 10
	sumsMagic    = "PLSUM001"
	sumsTail     = 4 + 8 + 4 + len(sumsMagic) // after the sums of the blocks
	parquetTail  = 8                          // the footer's length and the magic
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A DamageError says which file is damaged, and where.
type DamageError struct {
	Path   string
	Offset int64
	Err    error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged at offset %d: %v", e.Path, e.Offset, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

var (
	errChecksum  = errors.New("the checksum does not fit")
	errTruncated = errors.New("the file is too short")
	errFormat    = errors.New("not a file of the history")
)

// checkedFile is a Parquet file of the history that is open for reading. What is read of it is compared with its
// checksums. Safe for concurrent use.
type checkedFile struct {
	*parquet.File
	file    *os.File
	data    int64    // bytes before the sums
	sums    []uint32 // of the blocks
	checked []atomic.Bool
}

// openChecked opens a file and checks its footer. Errors about its content are of type DamageError.
func openChecked(path string) (*checkedFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return newChecked(f)
}

// newChecked takes over a file that is open, and closes it where it fails.
func newChecked(f *os.File) (*checkedFile, error) {
	c := &checkedFile{file: f}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// Close closes the file.
func (c *checkedFile) Close() error { return c.file.Close() }

func (c *checkedFile) open() error {
	footer, size, err := c.openSums()
	if err != nil {
		return err
	}
	// The indexes of pages are read when they are asked for, if at all.
	c.File, err = parquet.OpenFile(c, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(checkedBlock))
	var damage *DamageError
	if errors.As(err, &damage) {
		return damage
	}
	if err != nil {
		return c.damage(footer, err)
	}
	return nil
}

// openSums reads the checksums, and checks the footer.
func (c *checkedFile) openSums() (footer, size int64, err error) {
	info, err := c.file.Stat()
	if err != nil {
		return 0, 0, err
	}
	size = info.Size()
	if footer, err = footerStart(c.file, size); err != nil {
		return 0, 0, c.damage(size, err)
	}
	if err := c.readSums(footer, size); err != nil {
		return 0, 0, c.damage(footer, err)
	}
	return footer, size, nil
}

func (c *checkedFile) damage(offset int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errTruncated
	}
	return &DamageError{c.file.Name(), offset, err}
}

// footerStart is where Parquet's footer begins.
func footerStart(r io.ReaderAt, size int64) (int64, error) {
	if size < int64(sumsTail+parquetTail) {
		return 0, errTruncated
	}
	var tail [parquetTail]byte
	if _, err := r.ReadAt(tail[:], size-parquetTail); err != nil {
		return 0, err
	}
	start := size - parquetTail - int64(binary.LittleEndian.Uint32(tail[:4]))
	if string(tail[4:]) != "PAR1" || start < int64(sumsTail) {
		return 0, errFormat
	}
	return start, nil
}

func (c *checkedFile) readSums(footer, size int64) error {
	var tail [sumsTail]byte
	if _, err := c.file.ReadAt(tail[:], footer-int64(sumsTail)); err != nil {
		return err
	}
	if string(tail[16:]) != sumsMagic {
		return errFormat
	}
	c.data = int64(binary.LittleEndian.Uint64(tail[4:]))
	blocks := (c.data + checkedBlock - 1) / checkedBlock
	if c.data < 0 || c.data+4*blocks+int64(sumsTail) != footer {
		return errFormat
	}
	sums := make([]byte, 4*blocks+12)
	if _, err := c.file.ReadAt(sums, c.data); err != nil {
		return err
	}
	if crc32.Checksum(sums, castagnoli) != binary.LittleEndian.Uint32(tail[12:]) {
		return errChecksum
	}
	rest := make([]byte, size-footer)
	if _, err := c.file.ReadAt(rest, footer); err != nil {
		return err
	}
	if crc32.Checksum(rest, castagnoli) != binary.LittleEndian.Uint32(tail[:]) {
		return errChecksum
	}
	c.sums = make([]uint32, blocks)
	for i := range c.sums {
		c.sums[i] = binary.LittleEndian.Uint32(sums[4*i:])
	}
	c.checked = make([]atomic.Bool, blocks)
	return nil
}

// ReadAt reads, and checks each block when it is read for the first time.
func (c *checkedFile) ReadAt(p []byte, offset int64) (int, error) {
	end := min(offset+int64(len(p)), c.data)
	for block := offset / checkedBlock; block*checkedBlock < end; block++ {
		if c.checked[block].Load() {
			continue
		}
		if err := c.check(block); err != nil {
			return 0, err
		}
	}
	return c.file.ReadAt(p, offset)
}

// checkAll checks the whole file.
func (c *checkedFile) checkAll() error {
	for block := range c.sums {
		if err := c.check(int64(block)); err != nil {
			return err
		}
	}
	return nil
}

// blocks are buffers for reading one.
var blocks = sync.Pool{New: func() any { return new([checkedBlock]byte) }}

func (c *checkedFile) check(block int64) error {
	buffer := blocks.Get().(*[checkedBlock]byte)
	defer blocks.Put(buffer)
	start := block * checkedBlock
	b := buffer[:min(checkedBlock, c.data-start)]
	if _, err := c.file.ReadAt(b, start); err != nil {
		return c.damage(start, err)
	}
	if crc32.Checksum(b, castagnoli) != c.sums[block] {
		return c.damage(start, errChecksum)
	}
	c.checked[block].Store(true)
	return nil
}

// appendSums puts the sums into a finished Parquet file: its footer moves behind them.
func appendSums(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	data, err := footerStart(f, size)
	if err != nil {
		return fmt.Errorf("a file just written: %w", err)
	}
	footer := make([]byte, size-data)
	if _, err := f.ReadAt(footer, data); err != nil {
		return err
	}
	var tail []byte
	block := make([]byte, checkedBlock)
	for start := int64(0); start < data; start += checkedBlock {
		b := block[:min(checkedBlock, data-start)]
		if _, err := f.ReadAt(b, start); err != nil {
			return err
		}
		tail = binary.LittleEndian.AppendUint32(tail, crc32.Checksum(b, castagnoli))
	}
	tail = binary.LittleEndian.AppendUint32(tail, crc32.Checksum(footer, castagnoli))
	tail = binary.LittleEndian.AppendUint64(tail, uint64(data))
	tail = binary.LittleEndian.AppendUint32(tail, crc32.Checksum(tail, castagnoli))
	tail = append(append(tail, sumsMagic...), footer...)
	_, err = f.WriteAt(tail, data)
	return err
}

// asDamage makes an error that came of reading the file's content one that says so. Where Parquet cannot read what its checksum vouches
// for, the writer was broken: the offset is that of the whole.
func (c *checkedFile) asDamage(err error) error {
	var damage *DamageError
	var path *fs.PathError
	if err == nil || errors.As(err, &path) {
		return err
	}
	if errors.As(err, &damage) {
		return damage
	}
	return c.damage(0, err)
}
