package bpf

import (
	"encoding/binary"
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
	w.value = newMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 2 * uint32(unsafe.Sizeof(Sample{})), MaxEntries: 1})
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
	if err := w.value.Put(uint32(0), [2]Sample{*s}); err != nil {
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

// Copies come with their bytes and their links, and a word is found in either; what is not of the size that it tells of is counted.
func TestRingCopies(t *testing.T) {
	w := newRingWriter(t, 4096)
	ring, err := NewRing(w.ring)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	const header = unsafe.Offsetof(StackCopy{}.Stack)
	put := func(bytes, links uint32, length int) {
		t.Helper()
		var record [unsafe.Sizeof(Sample{}) * 2]byte
		c := StackCopy{TimeNs: 1, Cpu: 2, Present: 1, Pc: 3, Sp: 0x1000 + uint64(CopiedBelow), Fp: 4, Base: 5, Bytes: bytes, Links: links}
		copy(record[:header], unsafe.Slice((*byte)(unsafe.Pointer(&c)), header))
		for i, word := range []uint64{71, 72, 0x9000, 73, 74} {
			binary.NativeEndian.PutUint64(record[int(header)+8*i:], word)
		}
		if err := w.value.Put(uint32(0), record[:]); err != nil {
			t.Fatal(err)
		}
		if w.run(length) != 0 {
			t.Fatal("no room")
		}
	}
	const whole = int(header) + 2*8 + 24
	put(16, 1, whole)
	var got []CopiedStack
	ring.Copies(func(c CopiedStack) { got = append(got, c) })
	if len(got) != 1 || got[0].TimeNs != 1 || got[0].CPU != 2 || got[0].PC != 3 || got[0].FP != 4 || got[0].Base != 5 {
		t.Fatalf("%+v", got)
	}
	for address, want := range map[uint64]uint64{0x1000: 71, 0x1008: 72, 0x9000: 73, 0x9008: 74, 0x1010: 0, 0x8ff8: 0, 0x9010: 0, 0x9001: 0, 0: 0} {
		if word, ok := got[0].Word(address); word != want || ok != (want != 0) {
			t.Errorf("the word at %#x: %d, %t", address, word, ok)
		}
	}
	for _, bad := range []struct {
		bytes, links uint32
		length       int
	}{
		{16, 1, 4}, {16, 1, int(header) - 1}, {16, 1, whole - 1}, {16, 1, whole + 1}, {16, 2, whole}, {24, 1, whole}, {1 << 31, 1, whole}, {16, 1 << 31, whole},
	} {
		put(bad.bytes, bad.links, bad.length)
		before := ring.BadRecords
		ring.Copies(func(c CopiedStack) { t.Errorf("%+v gave %+v", bad, c) })
		if ring.BadRecords != before+1 {
			t.Errorf("%+v was not counted", bad)
		}
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
