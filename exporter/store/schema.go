// Package store keeps the profiles of the past on disk as Parquet files that any
// engine reads, within bounds of bytes, age and free space.
//
// # Layout
//
//	DIR/v1/samples/resolution=10s/host=HOST/date=2026-11-24/20261124T170510Z.parquet
//	DIR/v1/samples/resolution=1h/host=HOST/date=2026-11-24/20261124T17.parquet
//	DIR/v1/stacks/host=HOST/date=2026-11-24/20261124T170510Z.parquet, then 20261124T1705.parquet, 20261124T17.parquet
//
// There are two tables. samples says when, whose and how many; stacks says once
// what a stack is. They are joined by stack_id, which is a hash of the stack's
// content and so the same in every file and on every host.
//
// The directories are partitions in Hive's style: engines prune by host, date
// and resolution. An interval is written once, at resolution 10s, with the time of each
// sample in steps of 10 ms. When every interval of an hour is more than an hour old,
// its files become one at resolution 1h, whose rows say how many samples each minute had; when a day is over its hours become one file.
// The two resolutions together hold every sample once. Older versions wrote a second file of each hour, at resolution 1m; see arrange.
// Stacks stand in the date of the samples that refer to them: each date is complete in itself. Those of five minutes of an hour under way become one file, which a query of
// the last minutes is sooner through than thirty: most names are in each of them.
//
// A file is written under a name that no reader takes for its own, synced, and then renamed. So a crash costs the interval that
// was being written, and nothing else: a file that others were made of does not count any more once they are there, whether it is removed
// already or not (see arrange). Where the clock was set back, and an hour that was compacted has intervals again, their names end
// in a generation, "-1": they are compacted to files of that generation. Files that are damaged are renamed to *.parquet.damaged.
//
// # Size
//
// A host of 64 CPUs that are all busy, with 300 processes and 20,000 stacks of 40 frames an hour, of which a tenth is new in the next one, sampled at 97
// Hz (BenchmarkBusyHost), in MB:
//
//	intervals of an hour                             100     0.28 each: times of samples 34 %, stack_id 31 %
//	the hour, 20,000 rows                             1.2    58 bytes a row: 45 minutes, 8 stack_id
//	its stacks: the first hour's, a later one's       8.3, 1.0
//	a day, for each CPU                               0.9    hours 0.4, stacks 0.5
//
// An hour is one row group as long as no more than 32,768 pairs of stack and labels are in it.
//
// # Why minutes are a list
//
// Before, an hour was two files, one with a row for each minute and one with a row for all of them. Each row of a minute has to say again which of the
// hour's it is of, and what it is worth; and both files have the IDs of the stacks, which nothing compresses. As a list in the row of the hour the minutes
// take the place of both: 0.44 MB a CPU and day in place of 1.14 for the host above, and two fifths of what it was for a host of two CPUs. Zeros
// for the minutes without samples cost less than numbers that say which minutes have some. A query of whole hours does not read the list; one that wants
// minutes reads a tenth of the rows.
//
// # Encodings
//
// The pages are of version 1 of the format: in version 2 the levels, which tell how long each list is, are not compressed. Those of ten columns of frames were
// two fifths of what a host of two CPUs showed (BenchmarkRecording): 81 bytes a stack became 56, and the stacks of the host above 10 % less. The IDs of stacks
// have no dictionary, which would say each once more; where many processes have their stacks in common, zstd finds the same order of IDs again (51 kB of an hour, by a
// dictionary 121). The rows of an hour are sorted by process, and then by stack: labels are then runs, and the
// minutes in which a process ran stand together. By stack first, as intervals are, an hour of two CPUs took two fifths more.
//
// # Why two tables
//
// With the frames in each row (BenchmarkLayout), a minute of that host takes 31.5 MB instead of 1.6, 1,130 ms to write instead of 37,
// and 1,850 ms to find the functions at the top of all stacks instead of 580, most of which is to read the stacks of the hour once.
package store

// Version of the layout and of the tables, the first directory of the layout. New
// columns may come within a version; a column keeps its meaning and its type.
const Version = 1

// SampleRow is a row of the table samples: the samples of one span that share a
// stack and labels. The rows of an interval are sorted by stack, then by labels, after those of lost samples; those of
// an hour by labels, then by stack.
type SampleRow struct {
	Time     int64 `parquet:"time,timestamp(millisecond),dict"` // where the span begins, UTC
	Duration int64 `parquet:"duration"`                         // of the span, in nanoseconds
	// Type and Unit say what Value means, such as cpu and nanoseconds. Period is the distance of two samples in that unit.
	Type   string `parquet:"type,dict"`
	Unit   string `parquet:"unit,dict"`
	Period int64  `parquet:"period"`
	// StackID is the stack's ID in the table stacks; 0 where there is none: samples that were lost. Older files have a dictionary of it.
	StackID int64 `parquet:"stack_id"`
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
	// Service is what the process was called by: its service, or else the name of its program. Files of before it had a column, and the two after it, do not
	// have them: it reads as "".
	Service string `parquet:"service,dict"`
	PodUID  string `parquet:"pod_uid,dict"`
	// SystemdUnit is the label unit: there is a column of that name already.
	SystemdUnit string `parquet:"systemd_unit,dict"`

	// Count and Value are sums. What lost samples were worth is not known: their Value is 0.
	Count int64 `parquet:"count"` // samples
	Value int64 `parquet:"value"` // their sum, in Unit
	// Ticks are when the samples were taken: steps of 10 ms after Time, sorted, one for each
	// sample. Only at resolution 10s.
	Ticks []int32 `parquet:"ticks,list"`
	// Minutes are how many of the samples were taken in each minute of the hour: 60 numbers, or none where all are of the time and duration that the
	// row says. Only at resolution 1h.
	Minutes []int32 `parquet:"minutes,list,dict"`
}

// StackRow is a row of the table stacks. In an interval's file stacks with callers in common stand together, and so they do in each part of what is made of
// several: half of the frames of a busy host are then those of the row before, which a reader need not look at again.
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
