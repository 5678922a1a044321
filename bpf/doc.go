// Package bpf holds the programs that run in the kernel and typed access to
// them: their records, counters and limits (generated from types.bpf.h, so
// that C and Go share one definition), loading, the maps, and probes of what the
// running kernel has (Features).
//
// It knows nothing of processes, files or names. The objects are committed
// for amd64 and arm64; `make generate` builds them again with clang-19 and a
// test fails where the result differs.
package bpf

// The words of types.bpf.h under their Go names.
type (
	// Sample is one record of the ring; see struct sample.
	Sample = CpuSample
	// Counters is what one CPU counted, or the sum over all CPUs; see struct cpu_counters.
	Counters = CpuCpuCounters
	// StackCounters is the part of Counters that is kept for each side of a stack.
	StackCounters = CpuStackCounters
	// StackChunk is an element of stack_traces; see struct stack_chunk.
	StackChunk = CpuStackChunk
	// Target is a wanted process; see struct target.
	Target = CpuTarget
	// FrameKind is the top four bits of a Frame.
	FrameKind = CpuFrameKind
)

// Kinds of frames; see enum frame_kind.
const (
	FrameRaw    = CpuFrameKindFRAME_KIND_RAW
	FrameKernel = CpuFrameKindFRAME_KIND_KERNEL
	FrameNative = CpuFrameKindFRAME_KIND_NATIVE
)

// Flags of a Sample; see enum sample_flag.
const (
	SampleUserStackNew   = CpuSampleFlagSAMPLE_USER_STACK_NEW
	SampleKernelStackNew = CpuSampleFlagSAMPLE_KERNEL_STACK_NEW
	SampleKernelMode     = CpuSampleFlagSAMPLE_KERNEL_MODE
)

// MaxStackFrames is the deepest stack that one walk by frame pointers gives.
const MaxStackFrames = int(CpuLimitLIMIT_STACK_FRAMES)

const chunkFrames = int(CpuLimitLIMIT_CHUNK_FRAMES)
