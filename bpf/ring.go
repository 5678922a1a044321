package bpf

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Ring reads a ring buffer in place: a record is looked at where
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

	// BadRecords counts records that were not of the size of what they should be.
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

// Samples calls visit with every sample that is ready and returns their number; see Drain.
func (r *Ring) Samples(visit func(*Sample)) (n int) {
	return r.LabelledSamples(func(s *Sample, _ []byte) { visit(s) })
}

// LabelledSamples is Samples with the labels that go with a sample, which are valid during the call only; see Labels.
func (r *Ring) LabelledSamples(visit func(s *Sample, labels []byte)) (n int) {
	r.Drain(func(record []byte) {
		var labels []byte
		switch uintptr(len(record)) {
		case unsafe.Sizeof(Sample{}):
		case unsafe.Sizeof(LabelledSample{}):
			l := (*LabelledSample)(unsafe.Pointer(unsafe.SliceData(record)))
			labels = l.Labels[:min(int(l.Bytes), len(l.Labels))]
		default:
			r.BadRecords++
			return
		}
		visit((*Sample)(unsafe.Pointer(unsafe.SliceData(record))), labels)
		n++
	})
	return n
}

// Labels visits those that go with a sample: for each the lengths of key and value, a byte each, then both.
func Labels(packed []byte, visit func(key, value []byte)) {
	for len(packed) >= 2 {
		key, value := int(packed[0]), int(packed[1])
		if packed = packed[2:]; key+value > len(packed) {
			return
		}
		visit(packed[:key], packed[key:key+value])
		packed = packed[key+value:]
	}
}

// CopiedStack is a stack as it was in memory, and the registers of its thread; see struct stack_copy.
type CopiedStack struct {
	TimeNs uint64 // its sample's
	CPU    uint32
	PC, SP uint64
	FP     uint64 // rbp, x29
	Base   uint64 // rbx, x30
	// Stack are the bytes from CopiedBelow below SP on. Of Present, bit N says that those are there which lie in the page that is N after that of the
	// first byte.
	Stack   []byte
	Present uint32
	// Links are the struct copy_link of the frame pointers that lie elsewhere.
	Links []byte
}

const linkBytes = int(unsafe.Sizeof(CopyLink{}))

// Word reads 8 bytes of memory; false where they were not copied.
func (c *CopiedStack) Word(address uint64) (uint64, bool) {
	const page = 4096
	start := c.SP - uint64(CopiedBelow)
	at := address - start
	if n := uint64(len(c.Stack)); at >= n || n-at < 8 {
		return c.linked(address)
	}
	for _, a := range []uint64{address, address + 7} {
		if c.Present>>(a/page-start/page)&1 == 0 {
			return 0, false
		}
	}
	return binary.NativeEndian.Uint64(c.Stack[at:]), true
}

// linked reads a word of a link.
func (c *CopiedStack) linked(address uint64) (uint64, bool) {
	for link := c.Links; len(link) > 0; link = link[linkBytes:] {
		switch address - binary.NativeEndian.Uint64(link) {
		case 0:
			return binary.NativeEndian.Uint64(link[unsafe.Offsetof(CopyLink{}.Fp):]), true
		case 8:
			return binary.NativeEndian.Uint64(link[unsafe.Offsetof(CopyLink{}.Ra):]), true
		}
	}
	return 0, false
}

// Copies calls visit with every copy of a stack that is ready, whose bytes are valid during the call only; see Drain.
func (r *Ring) Copies(visit func(CopiedStack)) {
	var c StackCopy
	word := func(record []byte, offset uintptr) uint64 { return binary.NativeEndian.Uint64(record[offset:]) }
	half := func(record []byte, offset uintptr) uint32 { return binary.NativeEndian.Uint32(record[offset:]) }
	r.Drain(func(record []byte) {
		if len(record) < int(unsafe.Offsetof(c.Stack)) {
			r.BadRecords++
			return
		}
		bytes, links := uint64(half(record, unsafe.Offsetof(c.Bytes))), uint64(half(record, unsafe.Offsetof(c.Links)))
		stack := record[unsafe.Offsetof(c.Stack):]
		if bytes > uint64(len(c.Stack)) || uint64(len(stack)) != bytes+links*uint64(linkBytes) {
			r.BadRecords++
			return
		}
		visit(CopiedStack{
			TimeNs: word(record, unsafe.Offsetof(c.TimeNs)), CPU: half(record, unsafe.Offsetof(c.Cpu)),
			PC: word(record, unsafe.Offsetof(c.Pc)), SP: word(record, unsafe.Offsetof(c.Sp)),
			FP: word(record, unsafe.Offsetof(c.Fp)), Base: word(record, unsafe.Offsetof(c.Base)),
			Stack: stack[:bytes], Present: half(record, unsafe.Offsetof(c.Present)), Links: stack[bytes:],
		})
	})
}

// Drain calls visit with every record that is ready. The record, at a multiple of 8 bytes, is valid during the call only. It
// stops at a record that another CPU is still writing.
func (r *Ring) Drain(visit func(record []byte)) {
	position, end := r.consumer.Load(), r.producer.Load()
	for position < end {
		at := position & r.mask
		header := (*atomic.Uint32)(unsafe.Pointer(&r.data[at])).Load()
		if header&ringBusy != 0 {
			break
		}
		length := uint64(header &^ (ringBusy | ringDiscard))
		if header&ringDiscard == 0 {
			visit(r.data[at+ringHeader:][:length:length])
		}
		position += ringHeader + (length+7)&^7
		r.consumer.Store(position)
	}
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
