package bpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Ring reads the ring buffer of samples in place: a record is looked at where
// the kernel wrote it and never copied. Not safe for concurrent use.
//
// The kernel lays it out as three areas, of which the last is mapped twice in a
// row so that a record never wraps:
//
//	page 0: consumer position (ours)   page 1: producer position
//	page 2...: data, data again;  a record: u32 length|flags, u32 page, bytes
type Ring struct {
	consumer *atomic.Uint64
	producer *atomic.Uint64
	data     []byte
	mask     uint64
	mapped   [2][]byte

	// BadRecords counts records that were not of a Sample's size.
	BadRecords uint64
}

const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// NewRing maps the ring buffer m. Close unmaps it; the map stays the caller's.
func NewRing(m *ebpf.Map) (*Ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's consumer page: %w", err)
	}
	producer, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Munmap(consumer)
		return nil, fmt.Errorf("map the ring's %d bytes of data: %w", size, err)
	}
	return &Ring{
		consumer: (*atomic.Uint64)(unsafe.Pointer(&consumer[0])),
		producer: (*atomic.Uint64)(unsafe.Pointer(&producer[0])),
		data:     producer[page:],
		mask:     uint64(size - 1),
		mapped:   [2][]byte{consumer, producer},
	}, nil
}

// Drain calls visit with every record that is ready and returns their number.
// The record is only valid during the call. It stops at a record that another
// CPU is still writing.
func (r *Ring) Drain(visit func(*Sample)) int {
	position, end, n := r.consumer.Load(), r.producer.Load(), 0
	for position < end {
		at := position & r.mask
		header := (*atomic.Uint32)(unsafe.Pointer(&r.data[at])).Load()
		if header&ringBusy != 0 {
			break
		}
		length := uint64(header &^ (ringBusy | ringDiscard))
		if header&ringDiscard == 0 {
			if length == uint64(unsafe.Sizeof(Sample{})) {
				visit((*Sample)(unsafe.Pointer(&r.data[at+ringHeader])))
				n++
			} else {
				r.BadRecords++
			}
		}
		position += ringHeader + (length+7)&^7
		r.consumer.Store(position)
	}
	return n
}

// Pending is the number of bytes that wait to be read.
func (r *Ring) Pending() uint64 { return r.producer.Load() - r.consumer.Load() }

// Close unmaps the ring. It may be called more than once.
func (r *Ring) Close() error {
	for i, m := range r.mapped {
		if m == nil {
			continue
		}
		if err := unix.Munmap(m); err != nil {
			return fmt.Errorf("unmap the ring: %w", err)
		}
		r.mapped[i] = nil
	}
	return nil
}
