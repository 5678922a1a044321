package perfevent

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeRing is a Ring over plain memory, with the test in the kernel's place.
func fakeRing(data []byte, tail, head uint64) *Ring {
	r := &Ring{data: data, head: new(atomic.Uint64), tail: new(atomic.Uint64)}
	r.tail.Store(tail)
	r.head.Store(head)
	return r
}

// write puts a record in as the kernel does, byte by byte around the end.
func (r *Ring) write(kind uint32, misc uint16, body []byte) {
	record := binary.NativeEndian.AppendUint32(nil, kind)
	record = binary.NativeEndian.AppendUint16(record, misc)
	record = binary.NativeEndian.AppendUint16(record, uint16(headerSize+len(body)))
	head := r.head.Load()
	for i, b := range append(record, body...) {
		r.data[(head+uint64(i))%uint64(len(r.data))] = b
	}
	r.head.Store(head + uint64(headerSize+len(body)))
}

func drained(r *Ring) []Record {
	var records []Record
	r.Drain(func(record Record) {
		record.Body = bytes.Clone(record.Body)
		records = append(records, record)
	})
	return records
}

// Records come out as they went in, wherever in the ring they lie.
func TestRingWraps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{64, 256, 4096} {
		// Positions only grow, and start anywhere: near the end of 64 bits too.
		for _, start := range []uint64{0, uint64(size) - 4, ^uint64(0) - 3*uint64(size)} {
			ring := fakeRing(make([]byte, size), start, start)
			for range 500 {
				var want []Record
				for room := size; room >= headerSize; {
					body := make([]byte, r.IntN(room-headerSize+1))
					for i := range body {
						body[i] = byte(r.Uint32())
					}
					room -= headerSize + len(body)
					record := Record{Type: r.Uint32(), Misc: uint16(r.Uint32()), Body: body}
					ring.write(record.Type, record.Misc, body)
					want = append(want, record)
				}
				if got := drained(ring); len(got) != len(want) {
					t.Fatalf("ring of %d: %d records of %d", size, len(got), len(want))
				} else {
					for i := range got {
						if got[i].Type != want[i].Type || got[i].Misc != want[i].Misc || !bytes.Equal(got[i].Body, want[i].Body) {
							t.Fatalf("ring of %d: record %+v, want %+v", size, got[i], want[i])
						}
					}
				}
				if ring.tail.Load() != ring.head.Load() {
					t.Fatal("the tail was not moved")
				}
			}
		}
	}
}

// A ring that no kernel writes: whatever is in it, Drain ends and frees the room.
func TestRingBroken(t *testing.T) {
	header := func(size uint16) []byte {
		return binary.NativeEndian.AppendUint16(make([]byte, 6), size)
	}
	for name, c := range map[string]struct {
		data       []byte
		tail, head uint64
		records    int
	}{
		"size 0":                  {append(header(0), make([]byte, 56)...), 0, 16, 0},
		"size below a header":     {append(header(7), make([]byte, 56)...), 0, 16, 0},
		"larger than what waits":  {append(header(17), make([]byte, 56)...), 0, 16, 0},
		"larger than the ring":    {append(header(65535), make([]byte, 56)...), 0, 1 << 20, 0},
		"more than the ring":      {append(header(200), make([]byte, 56)...), 60, 300, 0},
		"head before the tail":    {append(header(8), make([]byte, 56)...), 64, 0, 0},
		"header at the very end":  {append(make([]byte, 56), header(8)...), 56, 64, 1},
		"second of no size":       {append(header(16), make([]byte, 56)...), 0, 32, 1},
		"only part of a header":   {make([]byte, 64), 0, 7, 0},
		"nothing":                 {make([]byte, 64), 5, 5, 0},
		"one record fills it all": {append(header(64), make([]byte, 56)...), 0, 64, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ring := fakeRing(c.data, c.tail, c.head)
			if got := drained(ring); len(got) != c.records {
				t.Errorf("%d records, want %d: %+v", len(got), c.records, got)
			}
			if left := ring.head.Load() - ring.tail.Load(); left >= headerSize {
				t.Errorf("%d bytes are left for ever", left)
			}
		})
	}
}

func FuzzRingDrain(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 8, 0}, uint64(0), uint64(8))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 200, 0}, 16), uint64(120), uint64(400))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 16, 0}, 16), ^uint64(0)-7, uint64(100))
	f.Fuzz(func(t *testing.T, data []byte, tail, head uint64) {
		size := 8
		for size*2 <= len(data) && size < 1<<12 {
			size *= 2
		}
		data = append(data, make([]byte, size)...)[:size]
		ring := fakeRing(data, tail, head)
		waiting, seen := head-tail, uint64(0)
		for _, record := range drained(ring) {
			seen += headerSize + uint64(len(record.Body))
			if uint64(len(record.Body)) > uint64(size) {
				t.Fatalf("a record of %d bytes in a ring of %d", len(record.Body), size)
			}
		}
		if seen > waiting || seen > uint64(size) {
			t.Fatalf("%d bytes of records, %d waited in a ring of %d", seen, waiting, size)
		}
		if left := ring.head.Load() - ring.tail.Load(); left >= headerSize || ring.head.Load() != head {
			t.Fatalf("%d bytes are left for ever", left)
		}
	})
}

// A real ring: the name that this thread gives itself arrives.
func TestRingReal(t *testing.T) {
	cpus, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	var rings []*Ring
	for _, cpu := range cpus {
		e, err := Open(sideband(), cpu)
		if err != nil {
			t.Fatalf("these tests need root: %v", err)
		}
		defer e.Close()
		ring, err := NewRing(e, 4)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		if err := e.Enable(); err != nil {
			t.Fatal(err)
		}
		rings = append(rings, ring)
	}
	run(t, "true")
	kinds := make(map[uint32]int)
	for _, ring := range rings {
		ring.Drain(func(r Record) {
			if len(r.Body) < 8 {
				t.Errorf("record of type %d with a body of %d bytes", r.Type, len(r.Body))
			}
			kinds[r.Type]++
		})
		if again := drained(ring); len(again) > 50 {
			t.Errorf("%d records came again", len(again))
		}
	}
	for _, kind := range []uint32{unix.PERF_RECORD_FORK, unix.PERF_RECORD_COMM, unix.PERF_RECORD_MMAP2, unix.PERF_RECORD_EXIT} {
		if kinds[kind] == 0 {
			t.Errorf("no record of type %d for a process: %v", kind, kinds)
		}
	}
	for _, ring := range rings {
		for range 2 {
			if err := ring.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNewRingFails(t *testing.T) {
	e, err := Open(cpuClock(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if ring, err := NewRing(e, 20); err == nil { // 4 GiB
		_ = ring.Close()
		t.Error("a ring of 4 GiB was mapped")
	}
	if ring, err := NewRing(&Event{fd: -1}, 0); err == nil || !reflect.DeepEqual(ring, (*Ring)(nil)) {
		t.Errorf("a ring without an event: %v", err)
	}
}
