package bpf

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// ringWriter puts what it is given into a real ring buffer, by a BPF program that the test runs.
type ringWriter struct {
	t       *testing.T
	ring    *ebpf.Map
	value   *ebpf.Map
	program map[int]*ebpf.Program // by number of bytes; negative: reserved and discarded
}

func newRingWriter(t *testing.T, bytes int) *ringWriter {
	t.Helper()
	w := &ringWriter{t: t, program: make(map[int]*ebpf.Program)}
	newMap := func(spec *ebpf.MapSpec) *ebpf.Map {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatalf("these tests need root: %v", err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	w.ring = newMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(bytes)})
	w.value = newMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(Sample{})), MaxEntries: 1})
	return w
}

// run gives 0 where the ring took the record.
func (w *ringWriter) run(bytes int) uint32 {
	w.t.Helper()
	p := w.program[bytes]
	if p == nil {
		body := asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, w.value.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.LoadMapPtr(asm.R1, w.ring.FD()),
			asm.Mov.Reg(asm.R2, asm.R0), asm.Mov.Imm(asm.R3, int32(bytes)), asm.Mov.Imm(asm.R4, 0),
			asm.FnRingbufOutput.Call(),
			asm.Return().WithSymbol("out"),
		}
		if bytes < 0 {
			body = asm.Instructions{
				asm.LoadMapPtr(asm.R1, w.ring.FD()),
				asm.Mov.Imm(asm.R2, int32(-bytes)), asm.Mov.Imm(asm.R3, 0),
				asm.FnRingbufReserve.Call(),
				asm.JEq.Imm(asm.R0, 0, "out"),
				asm.Mov.Reg(asm.R1, asm.R0), asm.Mov.Imm(asm.R2, 0),
				asm.FnRingbufDiscard.Call(),
				asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
				asm.Return(),
			}
		}
		var err error
		if p, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: body}); err != nil {
			w.t.Fatalf("%+v", err)
		}
		w.t.Cleanup(func() { _ = p.Close() })
		w.program[bytes] = p
	}
	result, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// put says whether there was room.
func (w *ringWriter) put(s *Sample) bool {
	w.t.Helper()
	if err := w.value.Put(uint32(0), s); err != nil {
		w.t.Fatal(err)
	}
	return w.run(int(unsafe.Sizeof(*s))) == 0
}

func randomSample(r *rand.Rand) *Sample {
	s := new(Sample)
	for i := range unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s)) {
		*(*byte)(unsafe.Add(unsafe.Pointer(s), i)) = byte(r.Uint32())
	}
	return s
}

// Many times around the ring, with records of other sizes and discarded ones in between, every sample
// comes out whole and in order.
func TestRing(t *testing.T) {
	w := newRingWriter(t, 4096)
	ring, err := NewRing(w.ring)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	r := rand.New(rand.NewPCG(7, 8))
	var want []*Sample
	bad := uint64(0)
	for round := range 200 {
		want = want[:0]
		for range r.IntN(20) {
			switch r.IntN(5) {
			case 0:
				if w.run(1+r.IntN(100)) == 0 {
					bad++
				}
			case 1:
				w.run(-[]int{1, 8, 104, 300}[r.IntN(4)])
			default:
				if s := randomSample(r); w.put(s) {
					want = append(want, s)
				}
			}
		}
		waits := ring.Pending()
		var got []*Sample
		n := ring.Samples(func(s *Sample) { c := *s; got = append(got, &c) })
		if n != len(got) || !reflect.DeepEqual(got, append([]*Sample(nil), want...)) {
			t.Fatalf("round %d: %d of %d samples, or not the same ones", round, n, len(want))
		}
		if len(want) > 0 && waits < uint64(len(want))*112 || ring.Pending() != 0 || ring.BadRecords != bad {
			t.Fatalf("round %d: %d bytes waited, %d do still, %d bad records, want %d", round, waits, ring.Pending(), ring.BadRecords, bad)
		}
	}
	if bad == 0 {
		t.Error("no bad record was made")
	}
}

// A full ring refuses; after it was read it takes again.
func TestRingFull(t *testing.T) {
	w := newRingWriter(t, 4096)
	ring, err := NewRing(w.ring)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	r := rand.New(rand.NewPCG(9, 10))
	for range 3 {
		n := 0
		for w.put(randomSample(r)) {
			n++
		}
		if most := 4096 / 112; n < most-1 || n > most {
			t.Fatalf("a ring of 4 KiB took %d samples", n)
		}
		if got := ring.Samples(func(*Sample) {}); got != n {
			t.Fatalf("%d of %d samples", got, n)
		}
	}
	if err := ring.Close(); err != nil {
		t.Error(err)
	}
	if err := ring.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewRingRefuses(t *testing.T) {
	if _, err := NewRing(load(t, Options{}).StackTraces()); err == nil {
		t.Error("a map that is no ring was taken")
	}
}
