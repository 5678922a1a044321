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
	// LabelledSample is a Sample with labels; see struct labelled_sample.
	LabelledSample = CpuLabelledSample
	// Counters is what one CPU counted, or the sum over all CPUs; see struct cpu_counters.
	Counters = CpuCpuCounters
	// StackCounters is the part of Counters that is kept for each side of a stack.
	StackCounters = CpuStackCounters
	// SpanCounters is the part of Counters that tells of the ids of spans.
	SpanCounters = CpuSpanCounters
	// StackChunk is an element of stack_traces; see struct stack_chunk.
	StackChunk = CpuStackChunk
	// Target is a wanted process; see struct target.
	Target = CpuTarget
	// Process is one whose code ranges are known; see struct process.
	Process = CpuProcess
	// CodeRange is a piece of a process's code; see struct code_range.
	CodeRange = CpuCodeRange
	// UnwindRule says how a frame is left; see struct unwind_rule.
	UnwindRule = CpuUnwindRule
	// UnwindSaved is where a register was saved; see struct unwind_saved.
	UnwindSaved = CpuUnwindSaved
	// StackCopy is a stack as it was in memory, and the registers; see struct stack_copy.
	StackCopy = CpuStackCopy
	// CopyLink is a link of its chain of frame pointers, outside of what was copied; see struct copy_link.
	CopyLink = CpuCopyLink
	// SpanSource is where threads keep the ids of spans.
	SpanSource = CpuSpanSource
	// SpanFlag is how.
	SpanFlag = CpuSpanFlag
	// FrameKind is the top four bits of a Frame.
	FrameKind = CpuFrameKind
)

// Kinds of frames; see enum frame_kind.
const (
	FrameRaw    = CpuFrameKindFRAME_KIND_RAW
	FrameKernel = CpuFrameKindFRAME_KIND_KERNEL
	FrameNative = CpuFrameKindFRAME_KIND_NATIVE
)

// Registers that a walk carries along; see enum rule_register.
const (
	RuleSP        = CpuRuleRegisterRULE_SP
	RuleFP        = CpuRuleRegisterRULE_FP
	RuleBase      = CpuRuleRegisterRULE_BASE
	RuleRegisters = CpuRuleRegisterRULE_REGISTERS
)

// Codes of no rule, and why; see enum rule_none.
const (
	RuleNoneGap     = uint32(CpuRuleNoneRULE_NONE_GAP)
	RuleNoneNoTable = uint32(CpuRuleNoneRULE_NONE_NO_TABLE)
	RuleNonePending = uint32(CpuRuleNoneRULE_NONE_PENDING)
)

// ProcessCopy is a flag of a Process; see enum process_flag.
const ProcessCopy = CpuProcessFlagPROCESS_COPY

// Where threads keep the ids of spans; see enum span_source.
const (
	SpanSourceNone       = CpuSpanSourceSPAN_SOURCE_NONE
	SpanSourceStatic     = CpuSpanSourceSPAN_SOURCE_STATIC
	SpanSourceSlot       = CpuSpanSourceSPAN_SOURCE_SLOT
	SpanSourceModule     = CpuSpanSourceSPAN_SOURCE_MODULE
	SpanSourceDescriptor = CpuSpanSourceSPAN_SOURCE_DESCRIPTOR
	SpanSourceGo         = CpuSpanSourceSPAN_SOURCE_GO
	SpanSourceGoRegister = CpuSpanSourceSPAN_SOURCE_GO_REGISTER
)

// How they are kept there; see enum span_flag.
const (
	SpanMusl  = CpuSpanFlagSPAN_MUSL
	SpanGoMap = CpuSpanFlagSPAN_GO_MAP
)

// Flags of a Sample; see enum sample_flag.
const (
	SampleUserStackNew   = CpuSampleFlagSAMPLE_USER_STACK_NEW
	SampleKernelStackNew = CpuSampleFlagSAMPLE_KERNEL_STACK_NEW
	SampleKernelMode     = CpuSampleFlagSAMPLE_KERNEL_MODE
	SampleCopy           = CpuSampleFlagSAMPLE_COPY
)

// Bounds; see enum limit.
const (
	// MaxStackFrames is the deepest stack that is kept.
	MaxStackFrames = int(CpuLimitLIMIT_STACK_FRAMES)
	// MaxKernelWalkFrames is the deepest stack that the kernel's own walk gives.
	MaxKernelWalkFrames = int(CpuLimitLIMIT_KERNEL_WALK_FRAMES)
	// MaxCodeRanges are the most of one process.
	MaxCodeRanges = int(CpuLimitLIMIT_CODE_RANGES)
	// CopiedBelow is how many bytes below the stack pointer a CopiedStack begins.
	CopiedBelow = int(CpuLimitLIMIT_COPY_BELOW)
)

const chunkFrames = int(CpuLimitLIMIT_CHUNK_FRAMES)
