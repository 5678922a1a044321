package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/exporter/destination"
	"github.com/pilotlight/pilotlight/exporter/queue"
	"github.com/pilotlight/pilotlight/exporter/store"
)

// Units, in the words of UCUM: those in braces say what is counted and are no part of a Prometheus name.
const (
	unitSeconds = "s"
	unitBytes   = "By"
	unitSamples = "{sample}"
	unitStacks  = "{stack}"
	unitFiles   = "{file}"
	// What OTLP calls a request.
	unitMessages = "{message}"
)

// instrument is one metric: how it is described, and how its series are read out of a snapshot.
type instrument[N int64 | float64] struct {
	name, unit, help string
	read             func(s *snapshot, observe func(value N, labels ...attribute.KeyValue))
}

// one reads a metric of a single series.
func one[N int64 | float64](value func(s *snapshot) N) func(*snapshot, func(N, ...attribute.KeyValue)) {
	return func(s *snapshot, observe func(N, ...attribute.KeyValue)) { observe(value(s)) }
}

// count is one for the counts of Stats.
func count(value func(s *snapshot) uint64) func(*snapshot, func(int64, ...attribute.KeyValue)) {
	return one(func(s *snapshot) int64 { return int64(value(s)) })
}

// sides reads a metric of the two sides of a stack.
func sides(value func(c *bpf.StackCounters) uint64) func(*snapshot, func(int64, ...attribute.KeyValue)) {
	return func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
		observe(int64(value(&s.BPF.User)), attribute.String("side", "user"))
		observe(int64(value(&s.BPF.Kernel)), attribute.String("side", "kernel"))
	}
}

// byDropReason reads a metric of the reasons why the history lacks something.
func byDropReason(counts func(*snapshot) map[string]uint64) func(*snapshot, func(int64, ...attribute.KeyValue)) {
	return func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
		for _, reason := range store.DropReasons {
			observe(int64(counts(s)[reason]), attribute.String("reason", reason))
		}
	}
}

// byDestination reads a metric of each OTLP destination.
func byDestination[N int64 | float64](read func(*destination.Stats, func(N, ...attribute.KeyValue))) func(*snapshot, func(N, ...attribute.KeyValue)) {
	return func(s *snapshot, observe func(N, ...attribute.KeyValue)) {
		for i := range s.to {
			d := &s.to[i]
			read(d, func(value N, labels ...attribute.KeyValue) {
				observe(value, append(labels, attribute.String("destination", d.Name), attribute.String("signal", string(d.Signal)))...)
			})
		}
	}
}

// cpuTime is the metric of one of cpuBreakdowns.
func cpuTime(name, help string) instrument[float64] {
	label := cpuBreakdowns[slices.IndexFunc(cpuBreakdowns, func(b cpuBreakdown) bool { return b.name == name })].label
	return instrument[float64]{"pilotlight." + name + ".cpu", unitSeconds, help, func(s *snapshot, observe func(float64, ...attribute.KeyValue)) {
		for value, nanos := range s.cpu[name] {
			observe(seconds(nanos), attribute.String(label, value))
		}
	}}
}

func reason(r bpf.Reason) attribute.KeyValue { return attribute.String("reason", r.String()) }

func seconds[N int64 | uint64](nanos N) float64 { return float64(nanos) / float64(time.Second) }

// counters count things; they never go down.
var counters = []instrument[int64]{
	{"pilotlight.events.fired", "{event}",
		"Times the sampling events fired: an estimate from their own clocks, because the kernel does not count and skips the " +
			"program silently while a task is inside bpf(). 0 for events without a fixed period.",
		count(func(s *snapshot) uint64 { return s.Fired })},
	{"pilotlight.samples.seen", unitSamples,
		"Times the sampling program ran. seen = filtered by target, cgroup, self and namespace + idle + taken.",
		count(func(s *snapshot) uint64 { return s.BPF.Seen })},
	{"pilotlight.samples.filtered", unitSamples,
		"Samples left out because they are not of the target, or by rules (cause relabel). Those of cause comm and relabel, and no others, are among the " +
			"samples taken: labels are matched in user space.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			for cause, n := range map[string]uint64{
				"target": s.BPF.FilteredTarget, "cgroup": s.BPF.FilteredCgroup, "self": s.BPF.FilteredSelf,
				"namespace": s.BPF.FilteredNamespace, "comm": s.Filtered, "relabel": s.Relabeled,
			} {
				observe(int64(n), attribute.String("cause", cause))
			}
		}},
	{"pilotlight.samples.idle", unitSamples, "Samples of a CPU that had nothing to do.",
		count(func(s *snapshot) uint64 { return s.BPF.Idle })},
	{"pilotlight.samples.taken", unitSamples,
		"Samples of work of the target. taken = exported + lost + filtered by comm and relabel + those of the interval under way.",
		count(func(s *snapshot) uint64 { return s.BPF.Taken })},
	{"pilotlight.samples.read", unitSamples, "Samples that came out of the ring buffer.",
		count(func(s *snapshot) uint64 { return s.Read })},
	{"pilotlight.samples.exported", unitSamples, "Samples handed to the exporters in the profiles of finished intervals.",
		count(func(s *snapshot) uint64 { return s.Exported })},
	{"pilotlight.exporter.samples", unitSamples,
		"Samples handed to each exporter: collected = delivered + dropped + those that wait in its queue.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			for _, e := range s.exporters {
				for result, n := range map[string]uint64{"collected": e.Collected, "delivered": e.Delivered, "dropped": e.Dropped} {
					observe(int64(n), attribute.String("exporter", e.Name), attribute.String("result", result))
				}
			}
		}},
	{"pilotlight.samples.lost", unitSamples, "Samples lost, by reason.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			for _, r := range bpf.SampleReasons {
				observe(int64(s.Lost(r)), reason(r))
			}
		}},
	{"pilotlight.samples.incomplete", unitSamples,
		"Samples exported that lack a stack, a part of one or a name, by reason. A sample that lacks more than one thing counts for each.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			for _, r := range incompleteReasons {
				observe(s.incomplete[r.String()], reason(r))
			}
		}},
	{"pilotlight.samples.spans", unitSamples,
		"Samples of processes that tell which span each thread works for, by what became of its ids: taken; none, where it worked for none; unreadable, " +
			"where a place that leads to them was not in memory; refused, where what is there are no ids. Dropped are those of the ones taken " +
			"that a profile had no room for.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			for result, n := range map[string]uint64{
				"taken": s.BPF.Span.Taken, "none": s.BPF.Span.None, "unreadable": s.BPF.Span.Unreadable, "refused": s.BPF.Span.Refused,
				"dropped": s.SpansDropped,
			} {
				observe(int64(n), attribute.String("result", result))
			}
		}},

	{"pilotlight.stacks.new", unitStacks, "Samples whose stack was met for the first time, by side.",
		sides(func(c *bpf.StackCounters) uint64 { return c.Fresh })},
	{"pilotlight.stacks.known", unitStacks, "Samples whose stack the kernel side knew already, by side.",
		sides(func(c *bpf.StackCounters) uint64 { return c.Known })},
	{"pilotlight.stacks.absent", unitStacks,
		"Samples that have no such side: user mode has no kernel stack, a kernel thread no user stack.",
		sides(func(c *bpf.StackCounters) uint64 { return c.None })},
	{"pilotlight.stacks.truncated", unitStacks, "Stacks whose walk on the kernel side ended before the root, by side.",
		sides(func(c *bpf.StackCounters) uint64 { return c.Truncated })},
	{"pilotlight.stacks.copied", unitStacks, "Stacks that were copied to user space and walked there, because the kernel side did not know their code yet, by side.",
		sides(func(c *bpf.StackCounters) uint64 { return c.Copied })},
	{"pilotlight.stacks.joined", unitStacks, "Stacks whose outer frames were those of the thread's last walk still, and were not walked again, by side.",
		sides(func(c *bpf.StackCounters) uint64 { return c.Joined })},
	{"pilotlight.stacks.lost", unitStacks, "Stacks lost whose samples were kept, by reason.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			observe(int64(s.BPF.User.MapFull+s.BPF.Kernel.MapFull), reason(bpf.ReasonStackMapFull))
			observe(int64(s.Naming.StacksLost), reason(bpf.ReasonStackEvicted))
			observe(int64(s.BadCopies), reason(bpf.ReasonBadRecord))
			observe(int64(s.BPF.User.Unreadable), reason(bpf.ReasonUserUnreadable))
			observe(int64(s.BPF.Kernel.Unreadable), reason(bpf.ReasonKernelUnreadable))
		}},

	{"pilotlight.naming.stacks", unitStacks,
		"Stacks that user space named (new), knew the names of (known), named again because mappings had changed (again), or walked first (copied).",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			observe(int64(s.Naming.StacksNew), attribute.String("result", "new"))
			observe(int64(s.Naming.StacksKnown), attribute.String("result", "known"))
			observe(int64(s.Naming.StacksAgain), attribute.String("result", "again"))
			observe(int64(s.Naming.StacksCopied), attribute.String("result", "copied"))
		}},
	{"pilotlight.location_cache.hits", "{location}", "Addresses of new stacks that were known from other stacks.",
		count(func(s *snapshot) uint64 { return s.Naming.LocationsHit })},
	{"pilotlight.location_cache.misses", "{location}", "Addresses of new stacks that were looked up in symbol tables.",
		count(func(s *snapshot) uint64 { return s.Naming.LocationsNew })},
	{"pilotlight.files.opened", unitFiles, "Executables and libraries opened.",
		count(func(s *snapshot) uint64 { return s.Files.Opened })},
	{"pilotlight.files.read", unitFiles, "Executables and libraries whose symbol tables were read.",
		count(func(s *snapshot) uint64 { return s.Files.Read })},
	{"pilotlight.files.failed", unitFiles, "Executables and libraries that could not be opened or read.",
		count(func(s *snapshot) uint64 { return s.Files.Failed })},

	{"pilotlight.sideband.records.lost", "{record}",
		"Records about processes and mappings that the kernel dropped; the maps of processes are read again after it.",
		count(func(s *snapshot) uint64 { return s.Table.RecordsLost })},
	{"pilotlight.sideband.forks", "{fork}", "Forks of processes seen.",
		count(func(s *snapshot) uint64 { return s.Table.ForksSeen })},
	{"pilotlight.sideband.execs", "{exec}", "Execs seen.",
		count(func(s *snapshot) uint64 { return s.Table.ExecsSeen })},
	{"pilotlight.sideband.mappings", "{mapping}", "New executable mappings seen.",
		count(func(s *snapshot) uint64 { return s.Table.MappingsSeen })},
	{"pilotlight.process_maps.forgotten", "{process}", "Processes whose mappings were forgotten, because all processes had too many.",
		count(func(s *snapshot) uint64 { return s.Table.Forgotten })},
	{"pilotlight.process_maps.rereads", "{read}", "Times /proc/PID/maps was read after the scan at the start.",
		count(func(s *snapshot) uint64 { return s.Table.Rereads })},
	{"pilotlight.identities.refused", "{identity}",
		"What processes said of themselves (service.name, resource attributes) that there was no room for: they are called by what else is known of them.",
		count(func(s *snapshot) uint64 { return s.Table.IdentitiesRefused })},
	{"pilotlight.targets.added", "{process}", "Descendants of target processes that became targets.",
		count(func(s *snapshot) uint64 { return s.BPF.TargetAdded })},
	{"pilotlight.targets.refused", "{process}", "Descendants of target processes that found no room in the map: they are not sampled.",
		count(func(s *snapshot) uint64 { return s.BPF.TargetMapFull })},

	{"pilotlight.unwind.tables.compiled", "{table}", "Files whose unwind tables were compiled.",
		count(func(s *snapshot) uint64 { return s.Unwind.Compiled })},
	{"pilotlight.unwind.tables.recompiled", "{table}", "Of those, files that had a table before, which was taken away because no process used it.",
		count(func(s *snapshot) uint64 { return s.Unwind.Recompiled })},
	{"pilotlight.unwind.tables.failed", "{table}", "Files that tell nothing of their frames, or could not be read.",
		count(func(s *snapshot) uint64 { return s.Unwind.Uncompiled })},
	{"pilotlight.unwind.tables.evicted", "{table}", "Unwind tables that no process used any more and that were taken away.",
		count(func(s *snapshot) uint64 { return s.Unwind.Evicted })},
	{"pilotlight.unwind.processes.withdrawn", "{process}", "Processes that made room on the kernel side, because they were not sampled lately.",
		count(func(s *snapshot) uint64 { return s.Unwind.Withdrawn })},
	{"pilotlight.unwind.refused", "{piece}", "Unwind tables and processes that found no room on the kernel side: their stacks end early.",
		count(func(s *snapshot) uint64 { return s.Unwind.Refused })},

	{"pilotlight.history.intervals", "{interval}", "Intervals that were written to the history on disk.",
		one(func(s *snapshot) int64 { return int64(s.history.Intervals) })},
	{"pilotlight.history.samples", unitSamples, "Samples in the intervals that were written to the history.",
		one(func(s *snapshot) int64 { return int64(s.history.Samples) })},
	{"pilotlight.history.dropped", "{interval}", "Intervals that could not be written to the history, by reason.",
		byDropReason(func(s *snapshot) map[string]uint64 { return s.history.Dropped })},
	{"pilotlight.history.samples.dropped", unitSamples, "Samples in the intervals that could not be written to the history, by reason.",
		byDropReason(func(s *snapshot) map[string]uint64 { return s.history.DroppedSamples })},
	{"pilotlight.history.stacks.lost", unitSamples, "Samples in the history whose stack is not kept, by reason.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			observe(int64(s.history.Limited), reason(bpf.ReasonHistoryFull))
		}},
	{"pilotlight.history.written", unitBytes, "What was written to the history, by intervals and by compaction.",
		one(func(s *snapshot) int64 { return int64(s.history.Written) })},
	{"pilotlight.history.compactions", unitFiles, "Files of the history that were made of others.",
		one(func(s *snapshot) int64 { return int64(s.history.Compactions) })},
	{"pilotlight.history.failures", "{try}", "Compactions of the history that failed, and were or will be tried again.",
		count(func(s *snapshot) uint64 { return s.history.Failures })},
	{"pilotlight.history.removed", unitFiles, "Files of the history that were removed because of its bounds.",
		one(func(s *snapshot) int64 { return int64(s.history.Removed) })},
	{"pilotlight.history.damaged", unitFiles, "Files of the history that were found damaged and set aside.",
		one(func(s *snapshot) int64 { return int64(s.history.Damaged) })},

	{"pilotlight.upload.sent", unitFiles, "Files of the history that were sent to object storage.",
		count(func(s *snapshot) uint64 { return s.upload.Files })},
	{"pilotlight.upload.sent.size", unitBytes, "What was sent to object storage.",
		count(func(s *snapshot) uint64 { return s.upload.Bytes })},
	{"pilotlight.upload.failures", "{try}", "Tries to bring object storage up to date that failed, and were or will be repeated.",
		count(func(s *snapshot) uint64 { return s.upload.Failures })},
	{"pilotlight.upload.removed", "{object}", "Objects that were removed from object storage because they were hours of which it has the day.",
		count(func(s *snapshot) uint64 { return s.upload.Removed })},
	{"pilotlight.upload.damaged", unitFiles, "Files of the history that were found damaged, and not sent to object storage.",
		count(func(s *snapshot) uint64 { return s.upload.Damaged })},
	{"pilotlight.upload.dropped", unitFiles, "Files that the history removed before they were sent to object storage.",
		count(func(s *snapshot) uint64 { return s.upload.DroppedFiles })},
	{"pilotlight.upload.dropped.size", unitBytes, "What the history removed before it was sent to object storage.",
		count(func(s *snapshot) uint64 { return s.upload.DroppedBytes })},

	{"pilotlight.otlp.samples", unitSamples,
		"Samples put into the queue of each OTLP destination, since its directory was made: " +
			"collected = delivered + partial (of messages that the receiver took in part) + dropped + those that wait.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) {
			if d.Signal != destination.Profiles {
				return
			}
			q := &d.Queue
			dropped := uint64(0)
			for _, n := range q.Dropped {
				dropped += n
			}
			for result, n := range map[string]uint64{"collected": q.Collected, "delivered": q.Delivered, "partial": q.Partial, "dropped": dropped, "pending": q.Pending} {
				observe(int64(n), attribute.String("result", result))
			}
		})},
	{"pilotlight.otlp.samples.dropped", unitSamples, "Samples that will not be delivered to an OTLP destination, by reason.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) {
			if d.Signal != destination.Profiles {
				return
			}
			for _, reason := range queue.DropReasons {
				observe(int64(d.Queue.Dropped[reason]), attribute.String("reason", reason))
			}
		})},
	{"pilotlight.otlp.messages.dropped", unitMessages, "Messages that will not be delivered to an OTLP destination, by reason.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) {
			for _, reason := range queue.DropReasons {
				observe(int64(d.Queue.DroppedBatches[reason]), attribute.String("reason", reason))
			}
		})},
	{"pilotlight.otlp.messages.sent", unitMessages, "Messages that an OTLP destination took.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) { observe(int64(d.Sent)) })},
	{"pilotlight.otlp.sent.size", unitBytes, "What was sent to an OTLP destination, compressed.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) { observe(int64(d.SentBytes)) })},
	{"pilotlight.otlp.rejected", "{item}", "Profiles or data points that an OTLP destination rejected of messages that it took.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) { observe(int64(d.Rejected)) })},
	{"pilotlight.otlp.failures", "{try}", "Tries to send a message to an OTLP destination that failed, by what it answered.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) {
			for code, n := range d.Failures {
				observe(int64(n), attribute.String("code", code))
			}
		})},

	{"pilotlight.bpf.runs", "{run}", "Runs of the sampling program.",
		count(func(s *snapshot) uint64 { return s.BPF.Seen })},
	{"pilotlight.collector.rounds", "{round}", "Times that samples and records were fetched from the kernel.",
		count(func(s *snapshot) uint64 { return s.Rounds })},
	{"pilotlight.stats.failures", "{failure}", "Scrapes that the profiler gave no counts for; they show its last ones.",
		one(func(s *snapshot) int64 { return s.failures })},
}

// times add up seconds; they never go down.
var times = []instrument[float64]{
	{"pilotlight.naming", unitSeconds, "Time spent on following processes and naming stacks.",
		one(func(s *snapshot) float64 { return seconds(s.Naming.NameNanos) })},
	{"pilotlight.bpf.run", unitSeconds, "Time spent in the sampling program, by its own clock.",
		one(func(s *snapshot) float64 { return seconds(s.BPF.RunTimeNs) })},
	{"pilotlight.agent.cpu", unitSeconds, "CPU time of the agent itself; that of the sampling program is not part of it.",
		func(s *snapshot, observe func(float64, ...attribute.KeyValue)) {
			observe(s.usage.User.Seconds(), attribute.String("mode", "user"))
			observe(s.usage.System.Seconds(), attribute.String("mode", "system"))
		}},
	{"pilotlight.history.work", unitSeconds, "Time spent on the history: on writing intervals, and on compaction.",
		func(s *snapshot, observe func(float64, ...attribute.KeyValue)) {
			observe(s.history.WriteTime.Seconds(), attribute.String("on", "intervals"))
			observe(s.history.CompactTime.Seconds(), attribute.String("on", "compaction"))
		}},
	{"pilotlight.otlp.send", unitSeconds, "Time spent on waiting for an OTLP destination.",
		byDestination(func(d *destination.Stats, observe func(float64, ...attribute.KeyValue)) {
			observe(d.SendTime.Seconds())
		})},
	{"pilotlight.otlp.gap", unitSeconds,
		"How long before the start the last interval ended that was put into the queue of an OTLP destination: what was sampled since is not in it.",
		byDestination(func(d *destination.Stats, observe func(float64, ...attribute.KeyValue)) {
			if d.Signal == destination.Profiles {
				observe(d.Gap.Seconds())
			}
		})},
	cpuTime("process", fmt.Sprintf("CPU time by process name, from the samples of finished intervals (CPU clock only). The first %d names "+
		`have a series each, the hottest of an interval first; all later ones are comm="%s", until one that was not there for an hour makes room. Kernel threads count under `+
		`their name before the slash.`, maxNames, otherName)),
	cpuTime("service", "CPU time by service: what the process says of itself, or else its container, unit or program (docs/identity.md)."),
	cpuTime("container", "CPU time by container, by its whole id; what runs in none is left out."),
	cpuTime("pod", "CPU time by Kubernetes pod, by its uid; what runs in none is left out."),
	cpuTime("unit", "CPU time by systemd unit; what runs in none is left out."),
	{"pilotlight.function.cpu", unitSeconds,
		fmt.Sprintf("CPU time by the function that ran, without what it called: the %d hottest of the last minutes. A sum goes on where it was when its function is among them again.", maxFunctions),
		func(s *snapshot, observe func(float64, ...attribute.KeyValue)) {
			for name, nanos := range s.functions {
				observe(seconds(nanos), attribute.String("function", name))
			}
		}},
	{"pilotlight.group.cpu", unitSeconds,
		"CPU time by group of functions (--function-group): of samples with a function of the group anywhere in their stack. A sample can be of several groups.",
		func(s *snapshot, observe func(float64, ...attribute.KeyValue)) {
			for name, nanos := range s.byGroup {
				observe(seconds(nanos), attribute.String("group", name))
			}
		}},
}

// gauges are what is there now.
var gauges = []instrument[int64]{
	{"pilotlight.symbol_tables", unitBytes, "Memory that symbol tables hold.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			observe(int64(s.Files.ImageBytes), attribute.String("of", "files"))
			observe(int64(s.KernelNameBytes), attribute.String("of", "kernel"))
		}},
	{"pilotlight.processes.tracked", "{process}", "Processes that the agent knows, those lately ended among them.",
		one(func(s *snapshot) int64 { return int64(s.Processes) })},
	{"pilotlight.unwind.rows", "{row}", "Rows of the unwind tables that the kernel side has.",
		one(func(s *snapshot) int64 { return int64(s.Unwind.Rows) })},
	{"pilotlight.unwind.processes", "{process}", "Processes whose code the kernel side knows.",
		one(func(s *snapshot) int64 { return int64(s.Unwind.Processes) })},
	{"pilotlight.unwind.arena", unitBytes, "Memory of unwind tables and lists of code in use; it lies within that of the BPF maps.",
		one(func(s *snapshot) int64 { return int64(s.Unwind.ArenaBytes) })},
	{"pilotlight.profiles.open", "{profile}", "Profiles being collected, that of the interval among them.",
		one(func(s *snapshot) int64 { return int64(s.Windows) })},
	{"pilotlight.bpf.maps", unitBytes, "Memory of the BPF maps.",
		one(func(s *snapshot) int64 { return int64(s.MapBytes) })},
	{"pilotlight.history.size", unitBytes, "What the files of the history take.",
		one(func(s *snapshot) int64 { return s.history.Bytes })},
	{"pilotlight.history.files", unitFiles, "Files of the history.",
		one(func(s *snapshot) int64 { return int64(s.history.Files) })},
	{"pilotlight.upload.pending", unitFiles, "Files of the history that wait to be sent to object storage.",
		one(func(s *snapshot) int64 { return int64(s.upload.PendingFiles) })},
	{"pilotlight.upload.pending.size", unitBytes, "What waits to be sent to object storage.",
		one(func(s *snapshot) int64 { return int64(s.upload.PendingBytes) })},
	{"pilotlight.otlp.queue.messages", unitMessages, "Messages that wait for an OTLP destination.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) {
			observe(int64(d.Queue.PendingBatches))
		})},
	{"pilotlight.otlp.queue.size", unitBytes, "What waits for an OTLP destination, on disk and in memory.",
		byDestination(func(d *destination.Stats, observe func(int64, ...attribute.KeyValue)) { observe(d.Queue.PendingBytes) })},
	{"pilotlight.agent.rss", unitBytes, "Resident memory of the agent.",
		one(func(s *snapshot) int64 { return s.usage.RSS })},
	{"pilotlight.agent.rss_anonymous", unitBytes, "Resident memory of the agent that no file backs: what it costs the host.",
		one(func(s *snapshot) int64 { return s.usage.RSSAnonymous })},
	{"pilotlight.agent.rss_file", unitBytes, "Resident memory of the agent that files back, its own program foremost.",
		one(func(s *snapshot) int64 { return s.usage.RSSFile })},
	{"pilotlight.agent.goroutines", "{goroutine}", "Goroutines of the agent.",
		one(func(s *snapshot) int64 { return int64(s.goroutines) })},
	{"pilotlight.build_info", "", "What was built: always 1, the labels tell.",
		func(s *snapshot, observe func(int64, ...attribute.KeyValue)) {
			observe(1, attribute.String("version", s.version), attribute.String("revision", revision()),
				attribute.String("go_version", runtime.Version()), attribute.String("arch", runtime.GOARCH))
		}},
}

// incompleteReasons are those of profiles as they are sampled that keep the sample. A bad record may be a sample's or a stack's.
var incompleteReasons = func() (reasons []bpf.Reason) {
	for r := bpf.ReasonNone + 1; int(r) < bpf.ReasonCount; r++ {
		if r == bpf.ReasonBadRecord || !slices.Contains(bpf.SampleReasons, r) && !slices.Contains(bpf.HistoryReasons, r) {
			reasons = append(reasons, r)
		}
	}
	return reasons
}()

// revision is the commit that was built, "" where the build did not record it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}

// register makes the instruments and the one callback that fills them all from one snapshot.
func register(meter metric.Meter, take func(context.Context) *snapshot) error {
	var (
		observed []metric.Observable
		fill     []func(*snapshot, metric.Observer)
		errs     []error
	)
	for _, i := range counters {
		o, err := meter.Int64ObservableCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.help))
		observed, errs = append(observed, o), append(errs, err)
		fill = append(fill, i.fill(func(m metric.Observer, v int64, a metric.ObserveOption) { m.ObserveInt64(o, v, a) }))
	}
	for _, i := range times {
		o, err := meter.Float64ObservableCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.help))
		observed, errs = append(observed, o), append(errs, err)
		fill = append(fill, i.fill(func(m metric.Observer, v float64, a metric.ObserveOption) { m.ObserveFloat64(o, v, a) }))
	}
	for _, i := range gauges {
		o, err := meter.Int64ObservableGauge(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.help))
		observed, errs = append(observed, o), append(errs, err)
		fill = append(fill, i.fill(func(m metric.Observer, v int64, a metric.ObserveOption) { m.ObserveInt64(o, v, a) }))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(ctx context.Context, observer metric.Observer) error {
		s := take(ctx)
		for _, f := range fill {
			f(s, observer)
		}
		return nil
	}, observed...)
	return err
}

func (i instrument[N]) fill(observe func(metric.Observer, N, metric.ObserveOption)) func(*snapshot, metric.Observer) {
	return func(s *snapshot, observer metric.Observer) {
		i.read(s, func(value N, labels ...attribute.KeyValue) {
			observe(observer, value, metric.WithAttributes(labels...))
		})
	}
}
