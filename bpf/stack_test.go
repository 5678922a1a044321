package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func randomFrames(r *rand.Rand, n int) []Frame {
	frames := make([]Frame, n)
	for i := range frames {
		if frames[i] = RawFrame(r.Uint64() >> r.IntN(64)); r.IntN(2) == 0 {
			frames[i] = KernelFrame(r.Uint64())
		}
	}
	return frames
}

// secretOf inverts the steps of StackKey: the secret that gives a stack the key.
func secretOf(key, owner uint64, frames []Frame) uint64 {
	inverse := uint64(1) // of the multiplier, by Newton's method
	for range 6 {
		inverse *= 2 - 0x9e3779b97f4a7c15*inverse
	}
	words := append(slices.Clone(frames), Frame(len(frames)), Frame(owner))
	for _, w := range slices.Backward(words) {
		key = (key^key>>32)*inverse ^ uint64(w)
	}
	return key
}

// StackKey and stackChunkKey give what the C of stack.bpf.h gives.
func TestStackKeyAgainstC(t *testing.T) {
	program := filepath.Join(t.TempDir(), "stackkey")
	arch := map[string]string{"amd64": "x86", "arm64": "arm64"}[runtime.GOARCH]
	out, err := exec.Command("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-I", ".",
		"-D__TARGET_ARCH_"+arch, "-o", program, "testdata/stackkey.c").CombinedOutput()
	if err != nil {
		t.Fatalf("compile stackkey.c: %v\n%s", err, out)
	}
	type stack struct {
		secret, owner uint64
		frames        []Frame
	}
	r := rand.New(rand.NewPCG(1, 2))
	stacks := []stack{{0, 0, nil}, {1, 2, nil}, {0, 0, []Frame{0}}, {^uint64(0), 0, randomFrames(r, MaxStackFrames)}}
	for range 20 { // keys that would be 0, and are 1
		frames := randomFrames(r, r.IntN(MaxStackFrames))
		owner := r.Uint64()
		stacks = append(stacks, stack{secretOf(0, owner, frames), owner, frames})
	}
	for range 5000 {
		stacks = append(stacks, stack{r.Uint64(), r.Uint64() & uint64(-r.IntN(2)), randomFrames(r, r.IntN(MaxStackFrames+1))})
	}
	var in bytes.Buffer
	for _, s := range stacks {
		for _, words := range []any{s.secret, s.owner, uint64(len(s.frames)), s.frames} {
			if err := binary.Write(&in, binary.NativeEndian, words); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(program)
	cmd.Stdin = &in
	if out, err = cmd.Output(); err != nil {
		t.Fatal(err)
	}
	const chunks = int(CpuLimitLIMIT_CHUNKS)
	want := make([]uint64, len(stacks)*chunks)
	if n, err := binary.Decode(out, binary.NativeEndian, want); err != nil || n != len(out) {
		t.Fatalf("%d bytes for %d stacks: %v", len(out), len(stacks), err)
	}
	ones := 0
	for i, s := range stacks {
		key := StackKey(s.secret, s.owner, s.frames)
		for chunk := range chunks {
			if got := stackChunkKey(key, chunk); got != want[i*chunks+chunk] {
				t.Fatalf("chunk %d of secret %#x, owner %#x, frames %#x: key %#x, C says %#x", chunk, s.secret, s.owner, s.frames, got, want[i*chunks+chunk])
			}
		}
		if key == 1 {
			ones++
		}
		if key == 0 {
			t.Errorf("secret %#x, frames %#x: key 0, which says no stack", s.secret, s.frames)
		}
	}
	if ones < 20 {
		t.Errorf("%d keys of 1, at least 20 were made for it", ones)
	}
}

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		frame   Frame
		kind    FrameKind
		address uint64
	}{
		{RawFrame(0x7f1234567890), FrameRaw, 0x7f1234567890},
		{RawFrame(0), FrameRaw, 0},
		{RawFrame(1<<57 - 1), FrameRaw, 1<<57 - 1}, // five-level page tables
		{KernelFrame(0xffffffff81000000), FrameKernel, 0xffffffff81000000},
		{KernelFrame(0xffff800008000000), FrameKernel, 0xffff800008000000}, // arm64
	} {
		if c.frame.Kind() != c.kind || c.frame.Address() != c.address {
			t.Errorf("%#x: kind %d, address %#x, want %d, %#x", uint64(c.frame), c.frame.Kind(), c.frame.Address(), c.kind, c.address)
		}
	}
}

// chunksOf lays a stack out as the C does, by chunk key.
func chunksOf(owner uint64, frames []Frame) (key uint64, chunks map[uint64]*StackChunk) {
	key, chunks = StackKey(testSecret, owner, frames), make(map[uint64]*StackChunk)
	for i := 0; i*chunkFrames < len(frames); i++ {
		c := &StackChunk{Frames: uint16(len(frames)), Index: uint16(i), Owner: owner}
		for j, f := range frames[i*chunkFrames : min(len(frames), (i+1)*chunkFrames)] {
			c.Frame[j] = uint64(f)
		}
		chunks[stackChunkKey(key, i)] = c
	}
	return key, chunks
}

func putChunks(t *testing.T, m *ebpf.Map, chunks map[uint64]*StackChunk) {
	t.Helper()
	for key, chunk := range chunks {
		if err := m.Put(key, chunk); err != nil {
			t.Fatal(err)
		}
	}
}

func openStackTraces(t *testing.T) (*StackTraces, *ebpf.Map) {
	t.Helper()
	p := load(t, Options{StackEntries: 4096})
	s, err := NewStackTraces(p.StackTraces(), testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return s, p.StackTraces()
}

// testSecret is that of the tests' stacks.
const testSecret = 0x0123456789abcdef

var depths = []int{1, 2, 31, 32, 33, 63, 64, 65, 96, 97, MaxStackFrames}

func TestStackTraces(t *testing.T) {
	s, m := openStackTraces(t)
	r := rand.New(rand.NewPCG(3, 4))
	before := randomFrames(r, 5)
	evicted := func(t *testing.T, key uint64) {
		t.Helper()
		got, err := s.Append(slices.Clone(before), key)
		if !errors.Is(err, ErrStackEvicted) || !slices.Equal(got, before) {
			t.Errorf("%d frames, error %v; want the %d from before and ErrStackEvicted", len(got), err, len(before))
		}
		if err := m.Lookup(key, new(StackChunk)); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("the stack was not removed: %v", err)
		}
	}
	for _, depth := range depths {
		frames := randomFrames(r, depth)
		key, chunks := chunksOf(r.Uint64(), frames)
		putChunks(t, m, chunks)
		got, err := s.Append(slices.Clone(before), key)
		if err != nil || !slices.Equal(got[:len(before)], before) || !slices.Equal(got[len(before):], frames) {
			t.Fatalf("depth %d: got %d frames, error %v", depth, len(got), err)
		}
		for lost := range chunks {
			putChunks(t, m, chunks)
			if err := m.Delete(lost); err != nil {
				t.Fatal(err)
			}
			evicted(t, key)
		}
	}
	evicted(t, 12345) // never there
}

// An element that was replaced while it was read holds a mixture of two. Whatever it holds, the answer
// is the stack that was put in, or that it is lost.
func TestStackTracesCorrupt(t *testing.T) {
	s, m := openStackTraces(t)
	r := rand.New(rand.NewPCG(5, 6))
	lost := 0
	for range 3000 {
		frames := randomFrames(r, depths[r.IntN(len(depths))])
		key, chunks := chunksOf(r.Uint64(), frames)
		chunkKey := stackChunkKey(key, r.IntN(len(chunks)))
		torn := *chunks[chunkKey]
		switch r.IntN(4) {
		case 0:
			torn.Frames = uint16(r.IntN(MaxStackFrames + 5))
		case 1:
			torn.Owner ^= 1 << r.IntN(64)
		case 2:
			torn.Frame[r.IntN(chunkFrames)] ^= 1 << r.IntN(64)
		case 3: // the element of another stack
			_, others := chunksOf(r.Uint64(), randomFrames(r, depths[r.IntN(len(depths))]))
			for _, other := range others {
				torn = *other
				break
			}
		}
		putChunks(t, m, chunks)
		putChunks(t, m, map[uint64]*StackChunk{chunkKey: &torn})
		got, err := s.Append(nil, key)
		switch {
		case err == nil && !slices.Equal(got, frames):
			t.Fatalf("a stack of %d frames became one of %d", len(frames), len(got))
		case err != nil && !errors.Is(err, ErrStackEvicted):
			t.Fatal(err)
		case err != nil:
			lost++
			if err := m.Lookup(key, new(StackChunk)); !errors.Is(err, ebpf.ErrKeyNotExist) {
				t.Fatalf("the stack was not removed: %v", err)
			}
		}
	}
	if lost < 1000 {
		t.Errorf("only %d of 3000 torn elements showed", lost)
	}
}

func TestNewStackTracesRefuses(t *testing.T) {
	if _, err := NewStackTraces(load(t, Options{}).Samples(), 0); err == nil {
		t.Error("a map of something else was taken")
	}
}
