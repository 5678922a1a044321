package otlp

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/google/pprof/profile"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Read reads a message, gzipped or not, of whatever tool wrote it, as Parse does, and gives what it holds of one type of values: SampleType, such
// as "cpu"; "" takes the only one, or that which the message means by default. Samples that are only counted have values by their period.
//
// The profiles of all resources and times are added up to one, with their accounts of samples. Those of differing periods are refused: nobody could say
// what a sample is worth. What Write wrote is read as it was, but for what docs/formats.md lists.
//
// Files are not trusted: what they take in memory and time is bounded, and an error says what is wrong.
func Read(r io.Reader, sampleType string) (*profile.Profile, error) {
	d, err := Parse(r)
	if err != nil {
		return nil, err
	}
	p, err := d.Profile(sampleType)
	if err != nil {
		return nil, fmt.Errorf("read OTLP profile: %w", err)
	}
	return p, nil
}

// Profile gives what Read does.
func (d *Data) Profile(sampleType string) (*profile.Profile, error) {
	sets, err := d.sets()
	if err != nil {
		return nil, err
	}
	if sampleType == "" && len(sets) > 0 {
		sampleType = sets[0].standard()
		for _, s := range sets {
			if s.find(sampleType) < 0 {
				return nil, fmt.Errorf("it has profiles of type %q and of %q: choose one", sampleType, s.standard())
			}
		}
	}
	j, err := d.join(sets, sampleType)
	if err != nil {
		return nil, err
	}
	if err := j.addTimes(); err != nil {
		return nil, err
	}
	j.beyond.Resource = resourceNames(sets)
	return pprof.ConvertBack(j.out, sampleType, j.beyond)
}

// maxResourceNames bounds the names of attributes that are looked for in each sample.
const maxResourceNames = 64

// resourceNames are the names of attributes of resources that are no labels of profile.Labels, in order.
func resourceNames(sets []*set) []string {
	names := make(map[string]bool)
	var last *profilespb.ResourceProfiles
	for _, s := range sets {
		if s.resource == last { // as many attributes as there may be, once
			continue
		}
		last = s.resource
		for _, a := range s.resource.GetResource().GetAttributes() {
			if labelNames[a.Key] == "" && a.Key != keyExecutableName && len(names) < maxResourceNames {
				names[a.Key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Pprof gives the message in the form of pprof's own library; with sampleType values of that type alone. What came from FromPprof
// is as it was. Otherwise resources, scopes, profiles and samples give the samples' labels, the nearer ones first; what is known of processes has
// the names that exporter/pprof gives it, and samples that are only counted have values by their period.
func (d *Data) Pprof(sampleType string) (*pb.Profile, error) {
	sets, err := d.sets()
	if err != nil {
		return nil, err
	}
	j, err := d.join(sets, sampleType)
	if err != nil {
		return nil, err
	}
	if sampleType != "" {
		if err := pprof.Select(j.out, sampleType); err != nil {
			return nil, err
		}
	}
	return j.out, nil
}

// join makes one pprof profile of sets.
type join struct {
	*Data
	memory  budget
	pprof   bool // all sets are of pprof profiles
	out     *pb.Profile
	beyond  pprof.Beyond
	times   [][]uint64 // of each sample
	columns map[column]int

	functions  []*pb.Function // by their indices; nil: not yet
	mappings   []*pb.Mapping
	locations  []*pb.Location
	stacks     [][]*pb.Location
	attributes []*label
	attributed []bool           // by the index of an attribute: it was made a label, if only nil
	lists      map[string]int32 // of attributes, numbered
	resources  map[resourceKey][]*label
}

// resourceKey is a resource, and whether its attributes keep their names.
type resourceKey struct {
	*profilespb.ResourceProfiles
	asIs bool
}

// column is a type of values; pprof profiles may have the same twice.
type column struct {
	profile.Type
	nth int
}

func (d *Data) join(sets []*set, sampleType string) (*join, error) {
	if len(sets) == 0 {
		return nil, errors.New("it has no profiles")
	}
	if sampleType != "" {
		var err error
		if sets, err = choose(sets, sampleType); err != nil {
			return nil, err
		}
	}
	t := d.message.Dictionary
	j := &join{
		Data: d, memory: maxMemory, out: new(pb.Profile), pprof: true,
		beyond:    pprof.Beyond{Kinds: make(map[*pb.Location]profile.FrameKind), EndsHashes: make(map[*pb.Mapping]string)},
		columns:   make(map[column]int),
		functions: make([]*pb.Function, len(t.FunctionTable)), mappings: make([]*pb.Mapping, len(t.MappingTable)),
		locations: make([]*pb.Location, len(t.LocationTable)), stacks: make([][]*pb.Location, len(t.StackTable)),
		attributes: make([]*label, len(t.AttributeTable)), attributed: make([]bool, len(t.AttributeTable)),
		lists: make(map[string]int32), resources: make(map[resourceKey][]*label),
	}
	for _, s := range sets {
		j.pprof = j.pprof && s.pprof
		for i := range s.types {
			j.columns[s.column(i)] = 0
		}
		if len(j.columns) > maxColumns {
			return nil, fmt.Errorf("it has more than %d types of values: choose one", maxColumns)
		}
	}
	if err := j.about(sets, sampleType); err != nil {
		return nil, err
	}
	clear(j.columns)
	for _, s := range sets {
		for i, t := range s.types {
			if c := s.column(i); !j.hasColumn(c) {
				j.columns[c] = len(j.out.SampleType)
				j.out.SampleType = append(j.out.SampleType, &pb.ValueType{Type: t.Name, Unit: t.Unit})
			}
		}
	}
	if j.pprof {
		for i := 1; i < len(j.mappings); i++ {
			if _, err := j.mapping(int32(i)); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range sets {
		if err := j.add(s); err != nil {
			return nil, err
		}
	}
	if !j.pprof {
		pprof.OrderMappings(j.out)
	}
	return j, nil
}

func (j *join) hasColumn(c column) bool {
	_, ok := j.columns[c]
	return ok
}

// column is that of the set's type of this index.
func (s *set) column(i int) column {
	c := column{Type: s.types[i]}
	for _, t := range s.types[:i] {
		if t == c.Type {
			c.nth++
		}
	}
	return c
}

// about finds what is said of the profile as a whole.
func (j *join) about(sets []*set, sampleType string) error {
	var first *profilespb.Profile
	var spans span
	var said [][]string
	for _, s := range sets {
		var ofSet []string
		for i := range s.types {
			p := s.profile(i)
			if i < len(s.profiles) {
				spans.add(p)
				list, err := j.aboutProfile(p)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					ofSet = list // the same at each profile of a set, where it is at more than one
				}
			}
			switch {
			case sampleType != "" && s.types[i].Name != sampleType:
			case first == nil:
				first = p
			case p.Period != first.Period || j.typeOf(p.PeriodType) != j.typeOf(first.PeriodType):
				return fmt.Errorf("it has profiles of differing periods, %s and %s, which cannot be added up: choose a type, or keep them in OTLP",
					j.period(first), j.period(p))
			}
		}
		if len(ofSet) > 0 {
			said = append(said, ofSet)
		}
	}
	out := j.out
	out.Comments = addComments(said)
	out.TimeNanos, out.DurationNanos = spans.bounds()
	t := j.typeOf(first.PeriodType)
	out.PeriodType, out.Period = &pb.ValueType{Type: t.Name, Unit: t.Unit}, first.Period
	if s := sets[0]; s.pprof {
		out.DefaultSampleType = attributeOf(s.scope.GetScope().GetAttributes(), keyDefaultSampleType).GetStringValue()
	} else if s.find(t.Name) >= 0 {
		out.DefaultSampleType = t.Name
	}
	return nil
}

func (j *join) period(p *profilespb.Profile) string {
	t := j.typeOf(p.PeriodType)
	return fmt.Sprintf("%d %.40s of %.40q", p.Period, t.Unit, t.Name)
}

// aboutProfile reads the attributes that pprof has fields for, and gives the comments.
func (j *join) aboutProfile(p *profilespb.Profile) (said []string, err error) {
	for _, i := range p.AttributeIndices {
		a := j.message.Dictionary.AttributeTable[i]
		text := a.GetValue().GetStringValue()
		switch j.text(a.KeyStrindex) {
		case keyComment:
			list := a.GetValue().GetArrayValue().GetValues()
			if text != "" {
				list = []*commonpb.AnyValue{a.Value}
			}
			for _, v := range list {
				// As often as it is said: each time is looked at, and many can be one long text.
				if err := j.memory.spend(256 + len(v.GetStringValue())); err != nil {
					return nil, err
				}
				said = append(said, v.GetStringValue())
			}
		case keyDocURL:
			j.out.DocURL = cmp.Or(j.out.DocURL, text)
		case keyDropFrames:
			j.out.DropFrames = cmp.Or(j.out.DropFrames, text)
		case keyKeepFrames:
			j.out.KeepFrames = cmp.Or(j.out.KeepFrames, text)
		}
	}
	return said, nil
}

// addComments makes one list of several: numbers of samples are added up, and other comments are said once.
func addComments(lists [][]string) []string {
	if len(lists) == 1 {
		return lists[0]
	}
	var out []string
	sums := make(map[string]uint64)
	at := make(map[string]int) // the place of a comment, or of a sum by its name
	for _, list := range lists {
		for _, c := range list {
			name, number, _ := strings.Cut(c, "=")
			n, err := strconv.ParseUint(number, 10, 64)
			isSum := err == nil && strings.HasPrefix(name, "samples.")
			if !isSum {
				name = c
			}
			i, known := at[name]
			if !known {
				i = len(out)
				at[name] = i
				out = append(out, c)
			}
			if isSum {
				sum, carry := bits.Add64(sums[name], n, 0)
				if carry != 0 {
					sum = math.MaxUint64
				}
				sums[name] = sum
				out[i] = fmt.Sprintf("%s=%d", name, sum)
			}
		}
	}
	return out
}

// span is from when to when profiles go.
type span struct {
	begin, end     uint64
	time, duration uint64 // of the first
	differ, begun  bool
}

func (s *span) add(p *profilespb.Profile) {
	begin, end := p.TimeUnixNano, p.TimeUnixNano+p.DurationNano
	if s.begun && begin == 0 {
		return // it does not say when it was
	}
	if !s.begun || s.time == 0 {
		*s = span{begin: begin, end: end, time: begin, duration: p.DurationNano, begun: true}
		return
	}
	s.differ = s.differ || begin != s.time || p.DurationNano != s.duration
	s.begin, s.end = min(s.begin, begin), max(s.end, end)
}

// bounds are the time and the duration of all, of the first as they are where all have the same.
func (s *span) bounds() (timeNanos, durationNanos int64) {
	if !s.differ {
		return int64(s.time), int64(s.duration)
	}
	return int64(s.begin), int64(s.end - s.begin)
}

// row tells samples of one set apart. The nth of equal ones in one profile is the nth in the others.
type row struct {
	stack, link, list, nth int32
}

// add adds the samples of a set.
func (j *join) add(s *set) error {
	context, err := j.context(s)
	if err != nil {
		return err
	}
	byAttributes := make(map[[2]int32]*labels)
	rows := make(map[row]int)
	begin := len(j.out.Sample)
	for i, p := range s.profiles {
		value := j.columns[s.column(i)]
		seen := make(map[row]int32)
		for _, sample := range p.Samples {
			key := row{stack: sample.StackIndex, link: sample.LinkIndex, list: j.list(sample.AttributeIndices)}
			if err := j.memory.spend(128); err != nil {
				return err
			}
			seen[key]++
			key.nth = seen[key] - 1
			at, ok := rows[key]
			if !ok {
				at = len(j.out.Sample)
				rows[key] = at
				of := [2]int32{key.list, key.link}
				if byAttributes[of] == nil {
					if byAttributes[of], err = j.labels(s, sample, context); err != nil {
						return err
					}
				}
				if err := j.sample(sample, byAttributes[of]); err != nil {
					return err
				}
			}
			if j.out.Sample[at].Value[value], err = sum(sample); err != nil {
				return err
			}
			if j.times[at] == nil {
				j.times[at] = sample.TimestampsUnixNano
			}
		}
	}
	if s.derived < 0 {
		return nil
	}
	from, to := j.columns[s.column(s.derived)], j.columns[s.column(len(s.profiles))]
	for _, sample := range j.out.Sample[begin:] {
		count, period := sample.Value[from], s.profiles[s.derived].Period
		if sample.Value[to] = count * period; sample.Value[to]/period != count {
			return errOverflow
		}
	}
	return nil
}

var errOverflow = errors.New("a sum of values does not fit 64 bits")

// sum is what the observations of a sample are together. Those that have a time alone count 1.
func sum(s *profilespb.Sample) (total int64, err error) {
	if len(s.Values) == 0 {
		return int64(len(s.TimestampsUnixNano)), nil
	}
	for _, v := range s.Values {
		next := total + v
		if (next > total) != (v > 0) && v != 0 {
			return 0, errOverflow
		}
		total = next
	}
	return total, nil
}

// list numbers lists of attributes.
func (j *join) list(indices []int32) int32 {
	var buffer [64]byte
	key := buffer[:0]
	for _, i := range indices {
		key = binary.NativeEndian.AppendUint32(key, uint32(i))
	}
	n, ok := j.lists[string(key)]
	if !ok {
		n = int32(len(j.lists))
		j.lists[string(key)] = n
	}
	return n
}

// sample begins a row, with no values.
func (j *join) sample(s *profilespb.Sample, l *labels) error {
	stack, err := j.stack(s.StackIndex)
	if err != nil {
		return err
	}
	// The stack and the labels are shared here, but not by who goes through them.
	const fixed, location, labelValue = 512, 8, 64
	if err := j.memory.spend(fixed + 8*len(j.out.SampleType) + location*len(stack) + labelValue*l.values + l.bytes); err != nil {
		return err
	}
	j.out.Sample = append(j.out.Sample, &pb.Sample{
		Location: stack, Value: make([]int64, len(j.out.SampleType)), Label: l.texts, NumLabel: l.numbers, NumUnit: l.units,
	})
	j.times = append(j.times, nil)
	return nil
}

// context are the labels of all samples of a set, the nearer first.
func (j *join) context(s *set) ([]*label, error) {
	var list []*label
	for _, p := range s.profiles {
		for _, i := range p.AttributeIndices {
			if strings.HasPrefix(j.text(j.message.Dictionary.AttributeTable[i].KeyStrindex), "pprof.profile.") {
				continue
			}
			l, err := j.attribute(i, s.pprof)
			if err != nil {
				return nil, err
			}
			list = append(list, l)
		}
	}
	for _, a := range s.scope.GetScope().GetAttributes() {
		if strings.HasPrefix(a.Key, "pprof.scope.") {
			continue
		}
		l, err := j.label(a.Key, a.Value, "", !s.pprof)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	resource, err := j.resource(resourceKey{s.resource, s.pprof})
	return append(list, resource...), err
}

// resource are the labels of all samples of a resource. They are made once, whatever the number of its profiles.
func (j *join) resource(of resourceKey) (list []*label, err error) {
	if known, ok := j.resources[of]; ok {
		return known, j.memory.spend(8 * len(known))
	}
	attributes := of.GetResource().GetAttributes()
	if !of.asIs {
		attributes = ofResource(attributes)
	}
	for _, a := range attributes {
		if of.asIs && a.Key == keyServiceName {
			continue // it is the first mapping's
		}
		l, err := j.label(a.Key, a.Value, "", !of.asIs)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	j.resources[of] = list
	return list, nil
}

func (j *join) labels(s *set, sample *profilespb.Sample, context []*label) (*labels, error) {
	out := newLabels()
	add := func(l *label) error {
		const entry = 192 // and some time
		if l == nil {
			return j.memory.spend(entry)
		}
		out.add(l)
		return j.memory.spend(entry + len(l.key))
	}
	for _, i := range sample.AttributeIndices {
		l, err := j.attribute(i, s.pprof)
		if err == nil {
			err = add(l)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, l := range context {
		if err := add(l); err != nil {
			return nil, err
		}
	}
	out.link(j.message.Dictionary.LinkTable[sample.LinkIndex])
	return out, nil
}

// attribute makes a label of one in the table, once.
func (j *join) attribute(i int32, asIs bool) (*label, error) {
	if j.attributed[i] && asIs == j.pprof {
		return j.attributes[i], nil
	}
	a := j.message.Dictionary.AttributeTable[i]
	l, err := j.label(j.text(a.KeyStrindex), a.Value, j.text(a.UnitStrindex), !asIs)
	if err == nil && asIs == j.pprof {
		j.attributes[i], j.attributed[i] = l, true
	}
	return l, err
}

func (j *join) stack(i int32) ([]*pb.Location, error) {
	indices := j.message.Dictionary.StackTable[i].LocationIndices
	if j.stacks[i] == nil && len(indices) > 0 {
		if err := j.memory.spend(8 * len(indices)); err != nil {
			return nil, err
		}
		stack := make([]*pb.Location, len(indices))
		for n, l := range indices {
			var err error
			if stack[n], err = j.location(l); err != nil {
				return nil, err
			}
		}
		j.stacks[i] = stack
	}
	return j.stacks[i], nil
}

func (j *join) location(i int32) (*pb.Location, error) {
	if l := j.locations[i]; l != nil {
		return l, nil
	}
	in := j.message.Dictionary.LocationTable[i]
	if err := j.memory.spend(256 + 64*len(in.Lines)); err != nil {
		return nil, err
	}
	m, err := j.mapping(in.MappingIndex)
	if err != nil {
		return nil, err
	}
	l := &pb.Location{ID: uint64(len(j.out.Location) + 1), Mapping: m, Address: in.Address}
	for _, line := range in.Lines {
		f := j.message.Dictionary.FunctionTable[line.FunctionIndex]
		if !j.pprof && f.NameStrindex == 0 && f.SystemNameStrindex == 0 {
			continue // its address says more
		}
		function, err := j.function(line.FunctionIndex)
		if err != nil {
			return nil, err
		}
		l.Line = append(l.Line, pb.Line{Function: function, Line: line.Line, Column: line.Column})
	}
	for _, a := range in.AttributeIndices {
		switch key, value := j.pair(a); key {
		case keyIsFolded:
			l.IsFolded = value.GetBoolValue()
		case keyFrameType:
			if kind := value.GetStringValue(); kind != "" {
				j.beyond.Kinds[l] = profile.FrameKind(kind)
			}
		}
	}
	j.out.Location = append(j.out.Location, l)
	j.locations[i] = l
	return l, nil
}

// pair is the key and value of an attribute in the table.
func (j *join) pair(i int32) (string, *commonpb.AnyValue) {
	a := j.message.Dictionary.AttributeTable[i]
	return j.text(a.KeyStrindex), a.Value
}

func (j *join) function(i int32) (*pb.Function, error) {
	if f := j.functions[i]; f != nil {
		return f, nil
	}
	in := j.message.Dictionary.FunctionTable[i]
	f := &pb.Function{
		ID: uint64(len(j.out.Function) + 1), Name: j.text(in.NameStrindex), SystemName: j.text(in.SystemNameStrindex),
		Filename: j.text(in.FilenameStrindex), StartLine: in.StartLine,
	}
	j.out.Function = append(j.out.Function, f)
	j.functions[i] = f
	return f, j.spendNames(f.Name, f.SystemName, f.Filename)
}

// spendNames counts names as often as they are used: each is looked at, and many can be one long string.
func (j *join) spendNames(names ...string) error {
	const entry = 192
	for _, n := range names {
		if err := j.memory.spend(entry + len(n)); err != nil {
			return err
		}
	}
	return nil
}

func (j *join) mapping(i int32) (*pb.Mapping, error) {
	if i == 0 || j.mappings[i] != nil {
		return j.mappings[i], nil
	}
	in := j.message.Dictionary.MappingTable[i]
	m := &pb.Mapping{
		ID: uint64(len(j.out.Mapping) + 1), Start: in.MemoryStart, Limit: in.MemoryLimit, Offset: in.FileOffset, File: j.text(in.FilenameStrindex),
	}
	var goID, hash string
	for _, a := range in.AttributeIndices {
		switch key, value := j.pair(a); key {
		case keyBuildIDGNU:
			m.BuildID = value.GetStringValue()
		case keyBuildIDGo:
			goID = value.GetStringValue()
		case keyEndsHash:
			hash = value.GetStringValue()
		case keyHasFunctions:
			m.HasFunctions = value.GetBoolValue()
		case keyHasFilenames:
			m.HasFilenames = value.GetBoolValue()
		case keyHasLineNumbers:
			m.HasLineNumbers = value.GetBoolValue()
		case keyHasInlineFrames:
			m.HasInlineFrames = value.GetBoolValue()
		}
	}
	m.BuildID = cmp.Or(m.BuildID, goID)
	if hash != "" {
		j.beyond.EndsHashes[m] = hash
	}
	j.out.Mapping = append(j.out.Mapping, m)
	j.mappings[i] = m
	return m, j.spendNames(m.File, m.BuildID, hash)
}

// addTimes counts the times of samples from the profile's start. All lie within it, where its length is known.
func (j *join) addTimes() error {
	if j.out.TimeNanos == 0 {
		return nil
	}
	j.beyond.Times = make([][]time.Duration, len(j.times))
	for i, times := range j.times {
		if err := j.memory.spend(8 * len(times)); err != nil {
			return err
		}
		for _, t := range times {
			at := max(0, int64(t)-j.out.TimeNanos)
			if j.out.DurationNanos > 0 {
				at = min(at, j.out.DurationNanos-1)
			}
			j.beyond.Times[i] = append(j.beyond.Times[i], time.Duration(at))
		}
	}
	return nil
}
