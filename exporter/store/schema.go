// Package store keeps the profiles of the past on disk as Parquet files that any
// engine reads, within bounds of bytes, age and free space.
//
// # Layout
//
//	DIR/v1/samples/resolution=10s/host=HOST/date=2026-11-24/20261124T170510Z.parquet
//	DIR/v1/samples/resolution=1m/host=HOST/date=2026-11-24/20261124T17.parquet
//	DIR/v1/samples/resolution=1h/host=HOST/date=2026-11-24/20261124T17.parquet
//	DIR/v1/stacks/host=HOST/date=2026-11-24/20261124T170510Z.parquet
//
// There are two tables. samples says when, whose and how many; stacks says once
// what a stack is. They are joined by stack_id, which is a hash of the stack's
// content and so the same in every file and on every host.
//
// The directories are partitions in Hive's style: engines prune by host, date
// and resolution. An interval is written once, at resolution 10s, with the time of each
// sample in steps of 10 ms. When every interval of an hour is more than an hour old,
// its files become one at resolution 1m, and one more at resolution 1h is
// made of the same samples for queries over long spans; when a day is over its hours become one file of
// each. So resolutions 10s and 1m together hold every sample once, and 1h repeats what 1m holds.
// Stacks stand in the date of the samples that refer to them: each date is complete in itself.
//
// A file is written under a name that no reader takes for its own, synced, and then renamed.
package store

// Version of the layout and of the tables, the first directory of the layout. New
// columns may come within a version; a column keeps its meaning and its type.
const Version = 1

// SampleRow is a row of the table samples: the samples of one span that share a
// stack and labels. The rows of a file are sorted by stack, then by labels, then by time.
type SampleRow struct {
	Time     int64 `parquet:"time,timestamp(millisecond),dict"` // where the span begins, UTC
	Duration int64 `parquet:"duration"`                         // of the span, in nanoseconds
	// Type and Unit say what Value means, such as cpu and nanoseconds. Period is the distance of two samples in that unit.
	Type   string `parquet:"type,dict"`
	Unit   string `parquet:"unit,dict"`
	Period int64  `parquet:"period"`
	// StackID is the stack's ID in the table stacks; 0 where there is none: samples that were lost.
	StackID int64 `parquet:"stack_id,dict"`
	// LossReason says why samples were lost, in the words of pilotlight_samples_lost_total; "" for samples that were not.
	LossReason string `parquet:"loss_reason,dict"`

	// Labels, in the words of the pprof profiles; "" and 0 where there is none.
	PID         int32  `parquet:"pid,dict"`
	TID         int32  `parquet:"tid,dict"`
	Comm        string `parquet:"comm,dict"`
	Thread      string `parquet:"thread,dict"`
	Exe         string `parquet:"exe,dict"`
	Cgroup      string `parquet:"cgroup,dict"`
	ContainerID string `parquet:"container_id,dict"`

	Count int64 `parquet:"count"`      // samples
	Value int64 `parquet:"value,dict"` // their sum, in Unit
	// Ticks are when the samples were taken: steps of 10 ms after Time, sorted, one for each
	// sample. Only at resolution 10s.
	Ticks []int32 `parquet:"ticks,list"`
}

// StackRow is a row of the table stacks.
type StackRow struct {
	// StackID is the first 8 bytes of a SHA-256 over the other columns: somebody who
	// chooses the names of functions cannot make a stack that passes for another one.
	StackID int64 `parquet:"stack_id"`
	// Whole says that the stack reaches a place where a process, thread or goroutine begins.
	Whole bool `parquet:"whole"`
	// Frames, innermost first: the kernel's, then the user's.
	Frames []FrameRow `parquet:"frames,list"`
}

// FrameRow is one function of a stack. Functions that were inlined stand before the one they were inlined into.
type FrameRow struct {
	// Function is the name to show, demangled.
	Function string `parquet:"function,dict"`
	// LinkageName is the function's name in its file; "" where it equals Function.
	LinkageName string `parquet:"linkage_name,dict"`
	File        string `parquet:"file,dict"`       // of the source, "" where unknown
	Line        int32  `parquet:"line,dict"`       // 0: unknown
	StartLine   int32  `parquet:"start_line,dict"` // of the function, 0: unknown
	// Kind is kernel, native, go or jit; truncated for the frame that stands where callers are missing.
	Kind    string `parquet:"kind,dict"`
	Module  string `parquet:"module,dict"`   // path of the executable or library
	BuildID string `parquet:"build_id,dict"` // of the module, hexadecimal
	Inlined bool   `parquet:"inlined"`       // into the next frame
	// Missing says why the function is not known, or why callers are missing, such as no_symbol; "" where nothing is.
	Missing string `parquet:"missing,dict"`
}
