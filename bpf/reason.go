package bpf

// Reason says why a sample, a stack or a name is missing. One enumeration
// (enum reason) serves the kernel side, frames such as "[truncated: unmapped pc]",
// the label of metrics and the comments of a pprof profile.
type Reason = CpuReason

// The reasons; types.bpf.h explains each.
const (
	ReasonNone             = CpuReasonREASON_NONE
	ReasonRingFull         = CpuReasonREASON_RING_FULL
	ReasonBadRecord        = CpuReasonREASON_BAD_RECORD
	ReasonStackMapFull     = CpuReasonREASON_STACK_MAP_FULL
	ReasonStackEvicted     = CpuReasonREASON_STACK_EVICTED
	ReasonUserUnreadable   = CpuReasonREASON_USER_UNREADABLE
	ReasonKernelUnreadable = CpuReasonREASON_KERNEL_UNREADABLE
	ReasonMaxDepth         = CpuReasonREASON_MAX_DEPTH
	ReasonUnmappedPC       = CpuReasonREASON_UNMAPPED_PC
	ReasonNoTable          = CpuReasonREASON_NO_TABLE
	ReasonTablePending     = CpuReasonREASON_TABLE_PENDING
	ReasonNoRule           = CpuReasonREASON_NO_RULE
	ReasonUnknownRegister  = CpuReasonREASON_UNKNOWN_REGISTER
	ReasonStackUnreadable  = CpuReasonREASON_STACK_UNREADABLE
	ReasonNotAdvancing     = CpuReasonREASON_NOT_ADVANCING
	ReasonCompatTask       = CpuReasonREASON_COMPAT_TASK
	ReasonColdLimited      = CpuReasonREASON_COLD_LIMITED
	ReasonStaleMapping     = CpuReasonREASON_STALE_MAPPING
	ReasonProcessUnknown   = CpuReasonREASON_PROCESS_UNKNOWN
	ReasonFileGone         = CpuReasonREASON_FILE_GONE
	ReasonFileUnreadable   = CpuReasonREASON_FILE_UNREADABLE
	ReasonNoSymbol         = CpuReasonREASON_NO_SYMBOL
	ReasonHistoryFull      = CpuReasonREASON_HISTORY_FULL
	ReasonHistoryDamaged   = CpuReasonREASON_HISTORY_DAMAGED
	ReasonHistoryRare      = CpuReasonREASON_HISTORY_RARE

	// ReasonCount is the number of reasons, ReasonNone included.
	ReasonCount = int(CpuReasonREASON_COUNT)
)

var reasonNames = [ReasonCount]string{
	ReasonNone:             "none",
	ReasonRingFull:         "ring_full",
	ReasonBadRecord:        "bad_record",
	ReasonStackMapFull:     "stack_map_full",
	ReasonStackEvicted:     "stack_evicted",
	ReasonUserUnreadable:   "user_unreadable",
	ReasonKernelUnreadable: "kernel_unreadable",
	ReasonMaxDepth:         "max_depth",
	ReasonUnmappedPC:       "unmapped_pc",
	ReasonNoTable:          "no_table",
	ReasonTablePending:     "table_pending",
	ReasonNoRule:           "no_rule",
	ReasonUnknownRegister:  "unknown_register",
	ReasonStackUnreadable:  "stack_unreadable",
	ReasonNotAdvancing:     "not_advancing",
	ReasonCompatTask:       "compat_task",
	ReasonColdLimited:      "cold_limited",
	ReasonStaleMapping:     "stale_mapping",
	ReasonProcessUnknown:   "process_unknown",
	ReasonFileGone:         "file_gone",
	ReasonFileUnreadable:   "file_unreadable",
	ReasonNoSymbol:         "no_symbol",
	ReasonHistoryFull:      "history_full",
	ReasonHistoryDamaged:   "history_damaged",
	ReasonHistoryRare:      "history_rare",
}

// String is the reason as metrics and comments write it, such as "ring_full".
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// SampleReasons are those that lose a whole sample; all others lose a stack, a part of one or a
// name, and keep the sample.
var SampleReasons = []Reason{ReasonRingFull, ReasonBadRecord}

// HistoryReasons come about in the history on disk: profiles as they are sampled never show them.
var HistoryReasons = []Reason{ReasonHistoryFull, ReasonHistoryDamaged, ReasonHistoryRare}
