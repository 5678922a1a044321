package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Frame is one word of a stack: its kind in the top four bits, the rest by kind.
type Frame uint64

const (
	frameKindShift   = 60
	framePayloadMask = 1<<frameKindShift - 1
	frameOffsetBits  = 36
)

// Bounds on what a native frame holds.
const (
	MaxFileID     = 1<<(frameKindShift-frameOffsetBits) - 1
	MaxFileOffset = 1<<frameOffsetBits - 1
)

// Kind tells what the rest of the word means.
func (f Frame) Kind() FrameKind { return FrameKind(f >> frameKindShift) }

// Address is the address in memory of a raw or a kernel frame.
func (f Frame) Address() uint64 {
	if f.Kind() == FrameKernel {
		return uint64(f) | ^uint64(framePayloadMask)
	}
	return uint64(f) & framePayloadMask
}

// RawFrame is a frame of kind FrameRaw.
func RawFrame(address uint64) Frame {
	return Frame(address&framePayloadMask | uint64(FrameRaw)<<frameKindShift)
}

// NativeFrame is a frame of kind FrameNative: an offset in a file, both cut to what a frame holds of them.
func NativeFrame(file uint32, offset uint64) Frame {
	return Frame(uint64(FrameNative)<<frameKindShift | uint64(file)&MaxFileID<<frameOffsetBits | offset&MaxFileOffset)
}

// File is the id of the file of a native frame, Offset where the frame is in it.
func (f Frame) File() uint32 { return uint32(f>>frameOffsetBits) & MaxFileID }

// Offset is the place of a native frame in its file.
func (f Frame) Offset() uint64 { return uint64(f) & MaxFileOffset }

// KernelFrame is a frame of kind FrameKernel.
func KernelFrame(address uint64) Frame {
	return Frame(address&framePayloadMask | uint64(FrameKernel)<<frameKindShift)
}

// StackKey computes the key of a stack from the secret of this start, and whose frames they are; it mirrors stack.bpf.h.
func StackKey(secret, owner uint64, frames []Frame) uint64 {
	key := secret
	for _, f := range frames {
		key = stackKeyStep(key, uint64(f))
	}
	if key = stackKeyStep(stackKeyStep(key, uint64(len(frames))), owner); key == 0 {
		return 1
	}
	return key
}

func stackKeyStep(key, word uint64) uint64 {
	key = (key ^ word) * 0x9e3779b97f4a7c15
	return key ^ key>>32
}

func stackChunkKey(key uint64, index int) uint64 {
	if index == 0 {
		return key
	}
	return stackKeyStep(key, uint64(index))
}

// ErrStackEvicted says that a stack, or a part of it, is not in stack_traces
// any more, or that what stands there does not belong to the key.
var ErrStackEvicted = errors.New("stack evicted from stack_traces")

// StackTraces reads the map of that name. Not safe for concurrent use.
type StackTraces struct {
	m      *ebpf.Map
	secret uint64
	chunk  StackChunk
}

// NewStackTraces wraps m, whose elements must be of type StackChunk; the secret is that of Options.
func NewStackTraces(m *ebpf.Map, secret uint64) (*StackTraces, error) {
	if m.ValueSize() != uint32(unsafe.Sizeof(StackChunk{})) {
		return nil, fmt.Errorf("stack_traces: elements of %d bytes, want %d", m.ValueSize(), unsafe.Sizeof(StackChunk{}))
	}
	return &StackTraces{m: m, secret: secret}, nil
}

// Append appends the frames under key to frames, innermost first. The key is
// computed again from what was read, so what is returned is the stack that was
// sampled; otherwise the error is ErrStackEvicted, and what is left of the
// stack is removed so that the next sample puts it in whole.
func (s *StackTraces) Append(frames []Frame, key uint64) ([]Frame, error) {
	start, want := len(frames), 0
	for i := 0; i == 0 || len(frames)-start < want; i++ {
		chunkKey := stackChunkKey(key, i)
		err := s.m.Lookup(unsafe.Pointer(&chunkKey), unsafe.Pointer(&s.chunk))
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return frames[:start], s.forget(key)
		}
		if err != nil {
			return frames[:start], fmt.Errorf("stack_traces: %w", err)
		}
		if i == 0 {
			want = int(s.chunk.Frames)
		}
		// Elements are reused: what is read may be another stack's by now, or half of each.
		if want == 0 || want > MaxStackFrames || int(s.chunk.Frames) != want || int(s.chunk.Index) != i {
			return frames[:start], s.forget(key)
		}
		for _, f := range s.chunk.Frame[:min(chunkFrames, want-(len(frames)-start))] {
			frames = append(frames, Frame(f))
		}
	}
	if StackKey(s.secret, s.chunk.Owner, frames[start:]) != key {
		return frames[:start], s.forget(key)
	}
	return frames, nil
}

func (s *StackTraces) forget(key uint64) error {
	if err := s.m.Delete(unsafe.Pointer(&key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("stack_traces: %w", err)
	}
	return ErrStackEvicted
}
