// Package otlp writes profiles in the format of the OpenTelemetry protocol (ProfilesData of opentelemetry-proto v1.10,
// package v1development), so that the Collector, Pyroscope and Parca all understand the same bytes, and reads those of any tool.
//
// [Encoder] makes messages of a [profile.Profile]; [Read] does the opposite. [Parse] gives a file with all that it holds,
// as [Data], which is converted to pprof's form and from it. docs/formats.md lists what is lost on each way.
//
// What differs between receivers decides how an [Encoder] writes:
//
//	keys and values stand in the attributes themselves; Parca refuses references to the dictionary, Pyroscope loses service.name by them
//	link_table[0] is empty: Parca refuses ids that are filled with zeros
//	period_type is always there: Pyroscope refuses profiles without, and shows none whose period is 0
//	each process has a service.instance.id: Parca leaves out attributes that are no text, such as process.pid, and so do Pyroscopes of old
//	no two messages of a profile have the same time, and no two processes of one service.instance.id: Pyroscope takes the second for the first, sent again
//	no sample is older than its profile: Parca refuses the message
//	a sample has one value, or times alone: Pyroscope refuses both at once
//	keys are letters, digits, dots and underscores, no two the same but for dots, and no more than 30 with Pyroscope's own, or else Pyroscope refuses the message
//	each frame has a name: those without vanish in Pyroscope
//	each function stands twice, and lines refer to the second: Parca takes the entry before the one that they refer to
//
// Other people's files are not trusted: what they take in memory and time is bounded. The package does no I/O but by readers and
// writers, and sends nothing.
package otlp

import (
	"cmp"
	"strconv"

	"go.opentelemetry.io/otel/semconv/v1.43.0"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Bounds of what receivers take by default, for Options.
const (
	ReceiversMaxBytes   = 4 << 20 // gRPC's of a message, Pyroscope's of a profile
	ReceiversMaxSamples = 16_000  // Pyroscope's of a profile
	// ReceiversMaxLabels is how many names of labels Pyroscope takes, of resource and sample together, with those that it gives itself.
	ReceiversMaxLabels = 30
	receiversMaxValue  = 2048 // bytes: Pyroscope's of a label's value
)

// scopeName says who wrote profiles.
const scopeName = "github.com/pilotlight/pilotlight"

// Names of attributes, as the semantic conventions have them.
const (
	keyServiceName       = string(semconv.ServiceNameKey)
	keyInstanceID        = string(semconv.ServiceInstanceIDKey)
	keyHostName          = string(semconv.HostNameKey)
	keyPID               = string(semconv.ProcessPIDKey)
	keyTitle             = string(semconv.ProcessTitleKey) // what ps and top show: the kernel's comm
	keyExecutableName    = string(semconv.ProcessExecutableNameKey)
	keyExecutablePath    = string(semconv.ProcessExecutablePathKey)
	keyCgroup            = string(semconv.ProcessLinuxCgroupKey)
	keyContainerID       = string(semconv.ContainerIDKey)
	keyPodUID            = string(semconv.K8SPodUIDKey)
	keyUnit              = "systemd.unit.name" // no convention yet: the name that the Collector's receiver of systemd has for it
	keyThreadID          = string(semconv.ThreadIDKey)
	keyThreadName        = string(semconv.ThreadNameKey)
	keyFrameType         = string(semconv.ProfileFrameTypeKey)
	keyBuildIDGNU        = string(semconv.ProcessExecutableBuildIDGNUKey)
	keyBuildIDGo         = string(semconv.ProcessExecutableBuildIDGoKey)
	keyEndsHash          = string(semconv.ProcessExecutableBuildIDHtlhashKey)
	keyHasFunctions      = string(semconv.PprofMappingHasFunctionsKey)
	keyHasFilenames      = string(semconv.PprofMappingHasFilenamesKey)
	keyHasLineNumbers    = string(semconv.PprofMappingHasLineNumbersKey)
	keyHasInlineFrames   = string(semconv.PprofMappingHasInlineFramesKey)
	keyIsFolded          = string(semconv.PprofLocationIsFoldedKey)
	keyComment           = string(semconv.PprofProfileCommentKey)
	keyDocURL            = string(semconv.PprofProfileDocURLKey)
	keyDropFrames        = string(semconv.PprofProfileDropFramesKey)
	keyKeepFrames        = string(semconv.PprofProfileKeepFramesKey)
	keyDefaultSampleType = string(semconv.PprofScopeDefaultSampleTypeKey)
	keySampleTypeOrder   = string(semconv.PprofScopeSampleTypeOrderKey)
)

// Labels that pprof profiles give to the ids of a link.
const (
	labelTraceID = pprof.LabelTraceID
	labelSpanID  = pprof.LabelSpanID
)

// Data is a ProfilesData message that is sound: its indices lead somewhere, its strings are UTF-8, and its attributes hold their keys and
// values themselves. It is not changed once it is made: it is safe for concurrent use.
type Data struct {
	message *profilespb.ProfilesData
}

// Message is the message itself, which must not be changed.
func (d *Data) Message() *profilespb.ProfilesData { return d.message }

// instanceID tells processes of a service apart, those of other hosts too where the host is known.
func instanceID(host string, pid int64) string {
	id := strconv.FormatInt(pid, 10)
	if host == "" {
		return id
	}
	return host + ":" + id
}

// serviceName is what a process is called by, as nothing better is known: its executable's name, or else its own.
func serviceName(exe, comm string) string {
	return cmp.Or(profile.ProgramName(exe, comm), "unknown_service") // as OpenTelemetry's SDKs say
}
