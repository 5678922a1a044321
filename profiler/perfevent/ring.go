package perfevent

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is the memory through which a perf event hands over its records: a page
// of positions and a power of two of pages of data. Not safe for concurrent use.
type Ring struct {
	memory []byte
	head   *atomic.Uint64 // written by the kernel
	tail   *atomic.Uint64 // written by us
	data   []byte
	whole  []byte // a record that wraps, put together
}

// Header of every record: u32 type, u16 misc, u16 size (header included).
const headerSize = 8

// Record is one record of a perf ring; Body is valid until the next one is read.
type Record struct {
	Type uint32
	Misc uint16
	Body []byte
}

// NewRing maps a ring of 2^order pages onto the event.
func NewRing(e *Event, order int) (*Ring, error) {
	page := os.Getpagesize()
	memory, err := unix.Mmap(e.fd, 0, page+page<<order, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d KiB for the perf event of CPU %d (limit: kernel.perf_event_mlock_kb): %w", page<<order>>10, e.CPU, err)
	}
	control := (*unix.PerfEventMmapPage)(unsafe.Pointer(&memory[0]))
	return &Ring{
		memory: memory,
		head:   (*atomic.Uint64)(unsafe.Pointer(&control.Data_head)),
		tail:   (*atomic.Uint64)(unsafe.Pointer(&control.Data_tail)),
		data:   memory[page:],
		whole:  make([]byte, 0, 1<<16),
	}, nil
}

// Drain calls visit with every record that stood in the ring when it was called.
func (r *Ring) Drain(visit func(Record)) {
	tail, head := r.tail.Load(), r.head.Load()
	for head-tail >= headerSize {
		if head-tail > uint64(len(r.data)) {
			tail = head // cannot happen with an intact kernel; never loop on it
			break
		}
		header := r.at(tail, headerSize)
		record := Record{Type: binary.NativeEndian.Uint32(header), Misc: binary.NativeEndian.Uint16(header[4:])}
		size := uint64(binary.NativeEndian.Uint16(header[6:]))
		if size < headerSize || size > head-tail {
			tail = head // nor can this
			break
		}
		record.Body = r.at(tail, size)[headerSize:]
		visit(record)
		tail += size
	}
	r.tail.Store(tail)
}

// Waiting says that Drain would find something.
func (r *Ring) Waiting() bool { return r.head.Load() != r.tail.Load() }

// at gives size bytes at a position, in one piece.
func (r *Ring) at(position, size uint64) []byte {
	from := position & uint64(len(r.data)-1)
	if from+size <= uint64(len(r.data)) {
		return r.data[from : from+size]
	}
	r.whole = append(r.whole[:0], r.data[from:]...)
	return append(r.whole, r.data[:size-uint64(len(r.whole))]...)
}

// Close unmaps the ring. It may be called more than once.
func (r *Ring) Close() error {
	if r.memory == nil {
		return nil
	}
	memory := r.memory
	r.memory = nil
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("unmap a perf ring: %w", err)
	}
	return nil
}
