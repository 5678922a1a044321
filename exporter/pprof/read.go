package pprof

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// MaxBytes is how large a profile may be, decompressed.
const MaxBytes = 256 << 20

// MaxFrames is how many frames of a stack are read, with the one that says so where there are more. What is made of stacks goes as deep as they do.
const MaxFrames = 64 << 10

// TooDeep is the reason of stacks that have more.
const TooDeep = "max_depth"

// MaxMemory bounds what a profile takes once it is decoded: a file of 1 MB can ask for 100 MB.
const MaxMemory = 2 << 30

// Read reads a profile, gzipped or not, of whatever tool wrote it. SampleType names the value that is
// wanted, such as "inuse_space"; "" takes the file's default, or else its last. Samples are counted by the
// value of unit count before it, as in "alloc_objects/count alloc_space/bytes", or by its period.
//
// What Write wrote is read as it was, but for what the format does not hold: Go frames are known by the names of their source files, code of JITs by
// having no mapping, kernel frames by the brackets around the mapping's name. Labels other than those that Write writes of itself
// are left out, attributes of resources among them. An address without a function is named "[file+0xoffset]".
//
// Files are not trusted: their size and what they take in memory is bounded, and an error says what is wrong. Stacks of more than MaxFrames
// frames keep the innermost.
func Read(r io.Reader, sampleType string) (*profile.Profile, error) {
	p, err := Parse(r)
	if err != nil {
		return nil, err
	}
	out, err := ConvertBack(p, sampleType, Beyond{})
	if err != nil {
		return nil, fmt.Errorf("read pprof profile: %w", err)
	}
	return out, nil
}

// Parse reads a profile as Read does, with all that the format holds.
func Parse(r io.Reader) (*pb.Profile, error) {
	p, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("read pprof profile: %w", err)
	}
	return p, nil
}

// Select leaves one type of values, such as "inuse_space", and all else as it is: labels, comments, and samples whose value is 0.
func Select(p *pb.Profile, sampleType string) error {
	value, err := chooseValue(p, sampleType)
	if err != nil {
		return err
	}
	p.SampleType = p.SampleType[value : value+1]
	p.DefaultSampleType = p.SampleType[0].Type
	for _, s := range p.Sample {
		s.Value = s.Value[value : value+1]
	}
	return nil
}

// ReadFile reads all of a file, gzipped or not, of MaxBytes at most once it is decompressed, and not empty.
func ReadFile(r io.Reader) ([]byte, error) {
	in := bufio.NewReader(r)
	var plain io.Reader = in
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		plain = unzipped
	}
	data, err := io.ReadAll(io.LimitReader(plain, MaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > MaxBytes:
		return nil, fmt.Errorf("it is larger than %d MiB", MaxBytes>>20)
	case len(data) == 0:
		return nil, errors.New("it is empty")
	}
	return data, nil
}

func parse(r io.Reader) (*pb.Profile, error) {
	data, err := ReadFile(r)
	if err != nil {
		return nil, err
	}
	size, err := decodedSize(data)
	if err != nil {
		return nil, err
	}
	if size > MaxMemory {
		return nil, fmt.Errorf("it would take more than %d MiB of memory", MaxMemory>>20)
	}
	p, err := pb.ParseUncompressed(data)
	if err != nil {
		return nil, err
	}
	return p, p.CheckValid()
}

// Fields of profile.proto that hold other messages.
const (
	profileSample   = 2
	profileLocation = 4
	sampleLocations = 1 // packed numbers
	sampleValues    = 2
)

// decodedSize is about what pprof's library needs for a profile, from above.
func decodedSize(data []byte) (size int, err error) {
	const (
		message = 192 // the largest message, its pointer, and slices that grow by doubling
		nested  = 96  // a line or a label
		element = 24  // of packed numbers: the number itself, and a pointer
	)
	err = fields(data, func(field uint64, value []byte) error {
		size += message
		if field != profileSample && field != profileLocation {
			return nil
		}
		return fields(value, func(field uint64, value []byte) error {
			size += nested
			if field == sampleLocations || field == sampleValues {
				size += element * len(value)
			}
			return nil
		})
	})
	return size, err
}

var errNotProto = errors.New("it is no profile.proto")

// fields visits the fields of a message; value is nil but where the field has a length.
func fields(data []byte, visit func(field uint64, value []byte) error) error {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 {
			return errNotProto
		}
		data = data[n:]
		length := 0
		var value []byte
		switch tag & 7 {
		case 0:
			_, length = binary.Uvarint(data)
		case 1:
			length = 8
		case 2:
			l, n := binary.Uvarint(data)
			if n <= 0 || l > uint64(len(data)-n) {
				return errNotProto
			}
			data, length = data[n:], int(l)
			value = data[:length]
		case 5:
			length = 4
		default:
			return errNotProto
		}
		if length > len(data) || length <= 0 && tag&7 == 0 {
			return errNotProto
		}
		data = data[length:]
		if err := visit(tag>>3, value); err != nil {
			return err
		}
	}
	return nil
}

type reader struct {
	beyond    Beyond
	functions map[*pb.Function]*profile.Function
	mappings  map[*pb.Mapping]*profile.Mapping
	locations map[*pb.Location]*profile.Location
	stacks    map[string]*profile.Stack
	labels    map[labelKey]*profile.Labels
	resources map[string][]profile.Attribute
}

// labelKey is profile.Labels without what pprof profiles do not hold.
type labelKey struct {
	pid, tid                                                      int
	comm, thread, exe, cgroup, containerID, podUID, unit, service string
	resource                                                      string
	traceID, spanID                                               string
}

// Beyond is what other formats say of a profile and pprof's cannot. The zero value says nothing.
type Beyond struct {
	Kinds      map[*pb.Location]profile.FrameKind
	EndsHashes map[*pb.Mapping]string
	// Resource names the labels that are attributes of a resource, in order.
	Resource []string
	// Times of each sample, in the order of the profile's; kept where there are as many as the sample counts.
	Times [][]time.Duration
}

// ConvertBack gives p, which is valid, as Read does.
func ConvertBack(p *pb.Profile, sampleType string, beyond Beyond) (*profile.Profile, error) {
	value, err := chooseValue(p, sampleType)
	if err != nil {
		return nil, err
	}
	t := p.SampleType[value]
	out := &profile.Profile{
		Type:     profile.Type{Name: Text(t.Type), Unit: Text(t.Unit)},
		Duration: time.Duration(p.DurationNanos),
	}
	if p.TimeNanos != 0 {
		out.Start = time.Unix(0, p.TimeNanos).UTC()
	}
	if periodType := p.PeriodType; periodType != nil && periodType.Type == t.Type && periodType.Unit == t.Unit {
		out.Period = p.Period
	}
	count := countOf(p, value)
	r := reader{
		beyond:    beyond,
		functions: make(map[*pb.Function]*profile.Function),
		mappings:  make(map[*pb.Mapping]*profile.Mapping),
		locations: make(map[*pb.Location]*profile.Location),
		stacks:    make(map[string]*profile.Stack),
		labels:    make(map[labelKey]*profile.Labels),
		resources: make(map[string][]profile.Attribute),
	}
	var total uint64
	for i, s := range p.Sample {
		sample := r.sample(s)
		sample.Value = s.Value[value]
		sample.Count = count(s)
		if i < len(beyond.Times) && len(beyond.Times[i]) > 0 && int64(len(beyond.Times[i])) == sample.Count {
			sample.Times = beyond.Times[i]
		}
		total += uint64(max(0, sample.Count))
		out.Samples = append(out.Samples, sample)
	}
	out.Account, out.Foreign = account(p.Comments, total)
	return out, nil
}

// chooseValue finds the index of the value that is wanted.
func chooseValue(p *pb.Profile, sampleType string) (int, error) {
	if len(p.SampleType) == 0 {
		return 0, errors.New("it has no types of values")
	}
	wanted := sampleType
	if wanted == "" {
		wanted = p.DefaultSampleType
	}
	var names []string
	for i, t := range slices.Backward(p.SampleType) {
		if t.Type == wanted {
			return i, nil
		}
		names = append(names, Text(t.Type))
	}
	if sampleType != "" {
		return 0, fmt.Errorf("it has no values of type %q: it has %q", sampleType, names)
	}
	return len(p.SampleType) - 1, nil
}

// countOf gives how many samples stand behind the value.
func countOf(p *pb.Profile, value int) func(*pb.Sample) int64 {
	counts := func(i int) bool { return p.SampleType[i].Unit == "count" }
	column := -1
	if i := slices.IndexFunc(p.SampleType, func(t *pb.ValueType) bool { return t.Type == "samples" && t.Unit == "count" }); i >= 0 {
		column = i
	} else if counts(value) {
		column = value
	} else if value > 0 && counts(value-1) {
		column = value - 1
	}
	if column >= 0 {
		return func(s *pb.Sample) int64 { return s.Value[column] }
	}
	if t := p.SampleType[value]; p.Period > 0 && p.PeriodType != nil && p.PeriodType.Unit == t.Unit {
		return func(s *pb.Sample) int64 { return s.Value[value] / p.Period }
	}
	return func(*pb.Sample) int64 { return 1 }
}

// sample gives the stacks and labels of a sample.
func (r *reader) sample(s *pb.Sample) profile.Sample {
	locations := cut(s.Location)
	out := profile.Sample{Labels: r.labelsOf(s)}
	kernel := 0
	for kernel < len(locations) && r.location(locations[kernel]).Kind == profile.FrameKernel {
		kernel++
	}
	end := kernel
	// What is missing of the kernel's side stands between the two; where it is the last frame, it may as well be all
	// there is of the user's.
	if kernel+1 < len(locations) && reasonOf(locations[kernel]) != "" {
		end++
	}
	if end > 0 {
		out.Kernel = r.stack(locations[:end])
	}
	if end < len(locations) {
		out.User = r.stack(locations[end:])
	}
	return out
}

// tooDeep stands where frames are left out. No location of a file has its ID.
var tooDeep = &pb.Location{Line: []pb.Line{{Function: &pb.Function{Name: Truncated(TooDeep)}}}}

// cut leaves the innermost frames of a stack that is too deep.
func cut(locations []*pb.Location) []*pb.Location {
	frames, fit := 0, 0 // fit: how many locations there is room for beside tooDeep
	for i, l := range locations {
		if frames += max(1, len(l.Line)); frames > MaxFrames {
			return append(slices.Clone(locations[:fit]), tooDeep)
		}
		if frames < MaxFrames {
			fit = i + 1
		}
	}
	return locations
}

func (r *reader) stack(locations []*pb.Location) *profile.Stack {
	var id []byte
	for _, l := range locations {
		id = binary.NativeEndian.AppendUint64(id, l.ID)
	}
	if s := r.stacks[string(id)]; s != nil {
		return s
	}
	s := new(profile.Stack)
	if last := len(locations) - 1; reasonOf(locations[last]) != "" {
		s.Truncated = reasonOf(locations[last])
		locations = locations[:last]
	}
	for _, l := range locations {
		s.Locations = append(s.Locations, r.location(l))
	}
	r.stacks[string(id)] = s
	return s
}

// reasonOf is why callers are missing, of a location that says so.
func reasonOf(l *pb.Location) string {
	if l.Mapping != nil || l.Address != 0 || len(l.Line) != 1 || l.Line[0].Line != 0 {
		return ""
	}
	f := l.Line[0].Function
	if f.Filename != "" || f.StartLine != 0 {
		return ""
	}
	return Reason(cmp.Or(Text(f.Name), Text(f.SystemName)))
}

// Reason is what Truncated made the name of; "" where it did not.
func Reason(name string) string {
	words, ok := strings.CutPrefix(name, "[truncated: ")
	words, closed := strings.CutSuffix(words, "]")
	reason := strings.ReplaceAll(words, " ", "_")
	if !ok || !closed || Truncated(reason) != name {
		return ""
	}
	return reason
}

// unnamed is how the collector names an address without a function.
var unnamed = regexp.MustCompile(`^\[.*\+0x[0-9a-f]+\]$`)

func (r *reader) location(l *pb.Location) *profile.Location {
	if known := r.locations[l]; known != nil {
		return known
	}
	out := &profile.Location{Mapping: r.mapping(l.Mapping), Address: l.Address}
	for _, line := range l.Line {
		out.Lines = append(out.Lines, profile.Line{Function: r.function(line.Function), Line: int(line.Line)})
	}
	if len(out.Lines) == 0 {
		out.Lines = []profile.Line{{Function: &profile.Function{Name: addressName(out)}}}
	}
	if len(out.Lines) == 1 && unnamed.MatchString(out.Lines[0].Function.Name) {
		out.Unnamed = "no_symbol"
	}
	out.Kind = cmp.Or(r.beyond.Kinds[l], kind(out))
	r.locations[l] = out
	return out
}

// addressName stands in for a function.
func addressName(l *profile.Location) string {
	if l.Mapping == nil {
		return fmt.Sprintf("[unknown+%#x]", l.Address)
	}
	return fmt.Sprintf("[%s+%#x]", path.Base(l.Mapping.Path), l.Address-l.Mapping.Start+l.Mapping.Offset)
}

// userBrackets are mappings that are the process's own although they are no files.
var userBrackets = []string{"[vdso]", "[vsyscall]", "[anon", "[heap]", "[stack", "[uprobes]", "[unknown]"}

func kind(l *profile.Location) profile.FrameKind {
	inUser := func(prefix string) bool { return strings.HasPrefix(l.Mapping.Path, prefix) }
	switch {
	case l.Mapping == nil && l.Address != 0:
		return profile.FrameJIT
	case l.Mapping != nil && strings.HasPrefix(l.Mapping.Path, "[") && !slices.ContainsFunc(userBrackets, inUser):
		return profile.FrameKernel
	case strings.HasSuffix(l.Lines[0].Function.File, ".go"):
		return profile.FrameGo
	}
	return profile.FrameNative
}

func (r *reader) function(f *pb.Function) *profile.Function {
	if known := r.functions[f]; known != nil {
		return known
	}
	out := &profile.Function{Name: Text(f.Name), File: Text(f.Filename), StartLine: clamp(f.StartLine)}
	// The linkage name, where the shown one is made of it.
	if system := Text(f.SystemName); out.Name == "" || Text(demangle.Simple(system)) == out.Name {
		out.Name = system
	}
	r.functions[f] = out
	return out
}

func (r *reader) mapping(m *pb.Mapping) *profile.Mapping {
	if m == nil {
		return nil
	}
	if known := r.mappings[m]; known != nil {
		return known
	}
	out := &profile.Mapping{
		Path: Text(m.File), BuildID: Text(m.BuildID), Start: m.Start, Limit: m.Limit, Offset: m.Offset,
		EndsHash: r.beyond.EndsHashes[m], HasFunctions: true, HasLines: m.HasLineNumbers,
	}
	r.mappings[m] = out
	return out
}

func (r *reader) labelsOf(s *pb.Sample) *profile.Labels {
	first := func(key string) string {
		if values := s.Label[key]; len(values) > 0 {
			return Text(values[0])
		}
		return ""
	}
	number := func(key string) int {
		if values := s.NumLabel[key]; len(values) > 0 {
			return clamp(values[0])
		}
		return 0
	}
	key := labelKey{
		number(LabelPID), number(LabelTID), first(LabelComm), first(LabelThread), first(LabelExe), first(LabelCgroup), first(LabelContainerID),
		first(LabelPodUID), first(LabelUnit), first(LabelService), "", first(LabelTraceID), first(LabelSpanID),
	}
	var resource []profile.Attribute
	for _, name := range r.beyond.Resource {
		if value := first(name); value != "" {
			resource = append(resource, profile.Attribute{Key: name, Value: value})
			key.resource += name + "\x00" + value + "\x00"
		}
	}
	l := r.labels[key]
	if l == nil {
		l = &profile.Labels{
			PID: key.pid, TID: key.tid, Comm: key.comm, Thread: key.thread, Exe: key.exe, Cgroup: key.cgroup, ContainerID: key.containerID,
			PodUID: key.podUID, Unit: key.unit, Service: key.service, Resource: r.resource(key.resource, resource), TraceID: key.traceID, SpanID: key.spanID,
		}
		r.labels[key] = l
	}
	return l
}

// resource gives one slice for equal attributes.
func (r *reader) resource(key string, of []profile.Attribute) []profile.Attribute {
	if known, ok := r.resources[key]; ok {
		return known
	}
	r.resources[key] = of
	return of
}

// account reads the comments that Convert wrote. A profile that does not say what was taken is foreign, and took what it has and what is said to be gone.
func account(comments []string, exported uint64) (a profile.Account, foreign bool) {
	a, foreign = profile.Account{Taken: exported, Exported: exported}, true
	for _, c := range comments {
		name, number, _ := strings.Cut(c, "=")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			continue
		}
		switch name = Text(name); name {
		case "samples.taken":
			a.Taken, foreign = n, false
		case "samples.exported":
			a.Exported = n
		case "samples.filtered":
			a.Filtered = n
		default:
			if reason, ok := strings.CutPrefix(name, "samples.lost."); ok {
				a.Lost = append(a.Lost, profile.Loss{Reason: reason, Count: n})
			}
		}
	}
	if foreign {
		a.Taken, a.Exported = exported+a.Filtered, exported
		for _, l := range a.Lost {
			a.Taken += l.Count
		}
	}
	return a, foreign
}

func clamp(n int64) int { return int(min(max(n, 0), math.MaxInt32)) }
