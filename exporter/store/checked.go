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

	// all reads the data of a file that is to be held at once, and gives it; nil: it is not to be held.
	all  func() ([]byte, error)
	held *[maxHeld]byte
}

// maxHeld is how large a file's data may be that is held.
const maxHeld = 512 << 10

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

// hold has all data be read at once when some of it is read, if it is not much, and be held until the file is closed, if it has one row group, so that no more
// files are held than are read at once. Read column by column, the file of an interval takes 28 system calls. Not safe for concurrent use with others.
func (c *checkedFile) hold() {
	if c.data > maxHeld || len(c.RowGroups()) != 1 {
		return
	}
	c.all = sync.OnceValues(func() ([]byte, error) {
		c.held = heldBuffers.Get().(*[maxHeld]byte)
		data := c.held[:c.data]
		_, err := c.file.ReadAt(data, 0)
		return data, err
	})
}

var heldBuffers = sync.Pool{New: func() any { return new([maxHeld]byte) }}

// Close closes the file. Nothing may read it any more.
func (c *checkedFile) Close() error {
	if c.held != nil {
		heldBuffers.Put(c.held)
		c.held = nil
	}
	return c.file.Close()
}

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
	first, beyond := offset/checkedBlock, (end+checkedBlock-1)/checkedBlock
	if c.all != nil && end == offset+int64(len(p)) {
		if data, err := c.all(); err == nil {
			return c.readHeld(data, p, offset, first, beyond)
		} // or some of it can be read
	}
	if !c.unchecked(first, beyond) {
		return c.file.ReadAt(p, offset)
	}
	// All blocks that p reaches into are read at once, and p is copied from them. Beyond them there is the footer, which may begin in the last one.
	start := first * checkedBlock
	buffer := blocks.Get().(*[]byte)
	defer blocks.Put(buffer)
	*buffer = resize(*buffer, int(min(beyond*checkedBlock, c.data)-start))
	if _, err := c.file.ReadAt(*buffer, start); err != nil {
		return 0, c.damage(start, err)
	}
	if err := c.check(*buffer, first); err != nil {
		return 0, err
	}
	n := 0
	if offset < end {
		n = copy(p[:end-offset], (*buffer)[offset-start:])
	}
	if n == len(p) {
		return n, nil
	}
	more, err := c.file.ReadAt(p[n:], offset+int64(n))
	return n + more, err
}

// readHeld copies what is held.
func (c *checkedFile) readHeld(data, p []byte, offset, first, beyond int64) (int, error) {
	if c.unchecked(first, beyond) {
		if err := c.check(data[first*checkedBlock:min(beyond*checkedBlock, c.data)], first); err != nil {
			return 0, err
		}
	}
	return copy(p, data[offset:]), nil
}

// unchecked says whether one of some blocks was not checked yet.
func (c *checkedFile) unchecked(first, beyond int64) bool {
	for block := first; block < beyond; block++ {
		if !c.checked[block].Load() {
			return true
		}
	}
	return false
}

// check compares blocks that stand one after the other with their sums.
func (c *checkedFile) check(data []byte, block int64) error {
	for ; len(data) > 0; block++ {
		b := data[:min(checkedBlock, len(data))]
		if data = data[len(b):]; crc32.Checksum(b, castagnoli) != c.sums[block] {
			return c.damage(block*checkedBlock, errChecksum)
		}
		c.checked[block].Store(true)
	}
	return nil
}

// checkAll checks the whole file.
func (c *checkedFile) checkAll() error {
	buffer := make([]byte, checkedBlock)
	for block := range int64(len(c.sums)) {
		if _, err := c.ReadAt(buffer[:min(checkedBlock, c.data-block*checkedBlock)], block*checkedBlock); err != nil {
			return err
		}
	}
	return nil
}

// blocks are buffers for some of them.
var blocks = sync.Pool{New: func() any { return new([]byte) }}

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
