package otlp

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/identity"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Options of an Encoder. The zero value makes one message of a profile, as a file needs it: of two messages in a file
// the indices would mean something else.
type Options struct {
	// Version of this program, "" to leave it out.
	Version string
	// Timestamps says that samples are written with the times at which they were taken, where these are known, not added up.
	Timestamps bool
	// ByService says that a resource is a service on this host, not a process: which process it was stands at each sample.
	ByService bool
	// MaxBytes and MaxSamples bound a message; 0 does not. Receivers take ReceiversMaxBytes and ReceiversMaxSamples.
	MaxBytes, MaxSamples int
	// Seed makes the ids of profiles, by which a receiver knows one that comes again; 0: they have none. No two encoders have the same.
	Seed [16]byte
	// Resource is what every resource has beside what is known of its process, such as host.name. What is known of the process wins.
	//
	// Where messages are bounded, as for receivers, a process has as many attributes of its own as there are names of labels left: the number of the others
	// is in its dropped_attributes_count.
	Resource map[string]string
}

// minMaxBytes leaves room for a sample whose names are cut.
const minMaxBytes = 64 << 10

// Encoder makes messages of profiles. Of one for the next it remembers what stacks are made of, within bounds. Not safe for
// concurrent use.
type Encoder struct {
	numbers numbering
	message message // its memory serves one after the other

	options Options
	// bounded says that messages are for receivers, and names and numbers of attributes are such as all of them take.
	bounded bool
	extra   []profile.Attribute // Options.Resource, in order
	names   map[string]string   // keys that samples can have beside what their processes say of themselves, by what they are to a receiver
}

// key is an attribute's key as a receiver takes it: for one with other characters than letters, digits, dots and underscores Pyroscope refuses the whole message.
func (e *Encoder) key(key string) string {
	if !e.bounded {
		return key
	}
	key = strings.Map(func(r rune) rune {
		if r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return '_'
		}
		return r
	}, key)
	if key != "" && key[0] >= '0' && key[0] <= '9' {
		key = "_" + key
	}
	return key
}

// name is what the key is to a receiver: to Pyroscope dots are underscores, and it refuses a message with two values of one name.
func (e *Encoder) name(key string) string {
	if !e.bounded {
		return key
	}
	return strings.ReplaceAll(key, ".", "_")
}

// left is how many names processes and programs may give to a sample. Of those that are known the comment and the span are none of a series; service.name counts twice.
func (e *Encoder) left() int { return ReceiversMaxLabels - (len(e.names) - 2 + 1) }

// NewEncoder refuses bounds that are too narrow for any sample, and more attributes of resources than receivers take beside the
// encoder's own.
func NewEncoder(o Options) (*Encoder, error) {
	e := &Encoder{options: o, bounded: o.MaxBytes != 0 || o.MaxSamples != 0, names: make(map[string]string)}
	switch {
	case o.MaxBytes != 0 && o.MaxBytes < minMaxBytes:
		return nil, fmt.Errorf("OTLP messages of %d bytes: want %d or more", o.MaxBytes, minMaxBytes)
	case o.MaxSamples != 0 && o.MaxSamples < 2: // a sample is written twice where it has a value of its own
		return nil, fmt.Errorf("OTLP messages of %d samples: want 2 or more", o.MaxSamples)
	}
	own := []string{
		keyServiceName, keyInstanceID, keyPID, keyTitle, keyExecutableName, keyExecutablePath, keyCgroup, keyContainerID,
		keyPodUID, keyUnit, keyThreadName, keyThreadID, keyComment, labelTraceID, labelSpanID,
	}
	for _, key := range own {
		e.names[e.name(key)] = key
	}
	if e.bounded {
		e.names["__name__"], e.names["__delta__"], e.names["__otel__"] = "", "", "" // are Pyroscope's own
	}
	size, seen := 0, make(map[string]bool)
	for _, given := range slices.Sorted(maps.Keys(o.Resource)) {
		value := o.Resource[given]
		if !utf8.ValidString(given + value) {
			return nil, fmt.Errorf("resource attribute %q: it is no UTF-8", given)
		}
		key := e.key(given)
		name := e.name(key)
		if other, ok := e.names[name]; ok && other != key || seen[name] {
			continue
		}
		seen[name] = true
		e.names[name] = key
		e.extra = append(e.extra, profile.Attribute{Key: key, Value: value})
		size += len(key) + len(value)
	}
	if e.left() < 0 {
		return nil, fmt.Errorf("%d resource attributes: receivers take %d labels of a sample, of which %d are the profiler's own; give fewer",
			len(e.extra), ReceiversMaxLabels, ReceiversMaxLabels-e.left()-len(e.extra))
	}
	if o.MaxBytes != 0 && size > o.MaxBytes/4 {
		return nil, fmt.Errorf("resource attributes of %d bytes: want %d or less", size, o.MaxBytes/4)
	}
	return e, nil
}

// Message is one that is ready to be sent.
type Message struct {
	// Data is a ProfilesData, encoded. ExportProfilesServiceRequest has the same fields under the same numbers.
	Data []byte
	// Samples, taken by the profiler, and Profiles that it holds.
	Samples, Profiles uint64
}

// Encode hands the messages of a profile to send, one after another; their sum is the profile. Each has a resource for each process
// with samples in it, and a dictionary of its own.
//
// Each resource has a profile of type samples/count, whose period_type is the type of p; where a sample's value is not its count times
// the period, also one of p's type. The account of samples is a comment of the first profile of the first message. A profile without
// samples is a message with an empty one.
//
// A stack that alone is larger than a message keeps its innermost frames, and says so; names are cut there that take more than 1/64 of it.
func (e *Encoder) Encode(p *profile.Profile, send func(Message) error) error {
	e.numbers.text = func(s string) string { return cutText(s, e.options.MaxBytes/64) }
	e.numbers.begin()
	b := batch{encoder: e, message: &e.message, profile: p, send: send, comments: pprof.Comments(p)}
	for i := range p.Samples {
		s := &p.Samples[i]
		b.valued = b.valued || s.Value != s.Count*p.Period
	}
	b.open()
	for _, process := range processes(p, e.options.ByService) {
		b.process, b.said, b.nth, b.message.counts, b.message.values = process.key, process.resource, process.nth, nil, nil
		for _, i := range process.samples {
			if err := b.add(p.Samples[i]); err != nil {
				return err
			}
		}
	}
	if b.message.samples == 0 && b.sent == 0 {
		b.message.resource(&b)
	}
	return b.flush()
}

// Write writes a profile as a file, with the times of its samples where it has them, not compressed.
func Write(w io.Writer, p *profile.Profile, o Options) error {
	if o.MaxBytes != 0 || o.MaxSamples != 0 {
		return errors.New("write OTLP profile: a file is one message, whatever its size")
	}
	e, err := NewEncoder(o)
	if err != nil {
		return err
	}
	return e.Encode(p, func(m Message) error {
		if _, err := w.Write(m.Data); err != nil {
			return fmt.Errorf("write OTLP profile: %w", err)
		}
		return nil
	})
}

// Write writes the message as a file, not compressed.
func (d *Data) Write(w io.Writer) error {
	data, err := proto.Marshal(d.message)
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("write OTLP profile: %w", err)
	}
	return nil
}

// processKey is what one resource is made of.
type processKey struct {
	pid                                                   int
	comm, exe, cgroup, containerID, podUID, unit, service string
	// attributes are what the process says of itself, as one text.
	attributes string
}

type processSamples struct {
	key      processKey
	resource []profile.Attribute
	nth      int   // of those with the same service.instance.id
	samples  []int // indices
}

// instance tells those apart that may not begin at the same time: which process, or which it says to be. What is in the environment is inherited: all processes
// of a container may say to be the same.
func (p *processSamples) instance() (pid int, said string) {
	for _, a := range p.resource {
		if a.Key == keyInstanceID {
			return 0, a.Value
		}
	}
	return p.key.pid, ""
}

// processes groups samples, in the order in which their processes come first.
func processes(p *profile.Profile, byService bool) []*processSamples {
	var list []*processSamples
	byKey := make(map[processKey]*processSamples)
	byLabels := make(map[*profile.Labels]*processSamples)
	type instance struct {
		pid  int
		said string
	}
	instances := make(map[instance]int)
	for i := range p.Samples {
		l := p.Samples[i].Labels
		of := byLabels[l]
		if of == nil {
			var key processKey
			var resource []profile.Attribute
			if l != nil {
				key = processKey{l.PID, l.Comm, l.Exe, l.Cgroup, l.ContainerID, l.PodUID, l.Unit, l.Service, ""}
				resource = l.Resource
				if byService {
					key = processKey{service: l.ServiceName()}
					resource = slices.DeleteFunc(slices.Clone(resource), func(a profile.Attribute) bool { return ofInstance(a.Key) })
				}
				if len(resource) > 0 {
					key.attributes = fmt.Sprintf("%q", resource)
				}
			}
			if of = byKey[key]; of == nil {
				of = &processSamples{key: key, resource: resource}
				pid, said := of.instance()
				of.nth = instances[instance{pid, said}]
				instances[instance{pid, said}]++
				byKey[key] = of
				list = append(list, of)
			}
			byLabels[l] = of
		}
		of.samples = append(of.samples, i)
	}
	return list
}

// ofInstance says whether an attribute tells instances of a service apart.
func ofInstance(key string) bool {
	return key == keyInstanceID || slices.ContainsFunc([]string{"process.", "container.", "k8s.pod.", "k8s.container."}, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// batch is one profile on its way.
type batch struct {
	encoder  *Encoder
	profile  *profile.Profile
	send     func(Message) error
	comments []string // until they are written
	valued   bool     // samples have values of their own
	process  processKey
	said     []profile.Attribute // by the process, of itself
	nth      int                 // process that says to be this instance
	message  *message
	sent     int // messages
}

// message is one that is being filled.
type message struct {
	dictionary
	resources      []resourceProfiles
	counts, values *profileOf // of the process under way; nil: not begun
	encoded        [2][]byte  // the samples of all profiles of counts, and of those of values
	samples        int        // written
	taken          uint64     // by the profiler
	bytes          int        // at most, without the dictionary
	commented      bool
	known          map[string]string // keys of the resource of the process under way, by their names
	left           int               // names that are left for its samples
	err            error             // of a part of it
	maxText        int               // 0: any

	// locationOf, functionOf are indices by the numbers of a numbering; 0: not yet. Those of locations, of which a stack has many, are
	// as they go on the wire: the bytes of the varint, and how many these are in the highest byte.
	locationOf []uint64
	functionOf []int32
	packed     []byte // the locations of the stack under way
	lines      []lineParts
	byMapping  map[*profile.Mapping]int32
	byKind     map[profile.FrameKind][]int32
	byLabels   map[*profile.Labels]labelled
}

// resourceProfiles is a ResourceProfiles with one ScopeProfiles: each encoded but for what is in it.
type resourceProfiles struct {
	resource, scope []byte
	profiles        []*profileOf
}

// profileOf is a Profile: encoded but for its samples, which are encoded[of][from:to]. Fields are written in the order of their numbers, as protobuf does.
type profileOf struct {
	before, after []byte
	of, from, to  int
	startNanos    int64
}

func (p *profileOf) bytes() int { return len(p.before) + p.to - p.from + len(p.after) }

const (
	ofCounts = iota
	ofValues
)

// lengthOf bounds the tag and the length before a message of less than 256 MiB.
const lengthOf = 1 + 4

// labelled is what labels become: attributes, and a link where they tell of a span.
type labelled struct {
	attributes []int32
	link       int32
}

type kindFunction struct {
	*profile.Function
	label bool
}

// open begins a message, in the memory of the last.
func (b *batch) open() {
	m := b.message
	m.dictionary.begin()
	clear(m.locationOf)
	clear(m.functionOf)
	*m = message{
		dictionary: m.dictionary, maxText: b.encoder.options.MaxBytes / 64, resources: m.resources[:0], encoded: [2][]byte{m.encoded[0][:0], m.encoded[1][:0]},
		locationOf: m.locationOf, functionOf: m.functionOf, packed: m.packed, lines: m.lines,
		byMapping: make(map[*profile.Mapping]int32), byLabels: make(map[*profile.Labels]labelled), byKind: make(map[profile.FrameKind][]int32),
	}
}

// flush hands the message over.
func (b *batch) flush() error {
	m := b.message
	if len(m.resources) == 0 {
		return nil
	}
	if m.err != nil {
		return fmt.Errorf("make OTLP profile: %w", m.err)
	}
	if m.commented {
		b.comments = nil
	}
	b.sent++
	out := Message{Data: m.encode(), Samples: m.taken}
	for i := range m.resources {
		out.Profiles += uint64(len(m.resources[i].profiles))
	}
	if err := b.send(out); err != nil {
		return err
	}
	b.open()
	return nil
}

// atMost bounds what the message takes.
func (m *message) atMost() int { return m.bytes + lengthOf + m.dictionary.bytes() }

// encode gives the whole message.
func (m *message) encode() []byte {
	b := make([]byte, 0, m.atMost())
	for i := range m.resources {
		r := &m.resources[i]
		inScope := len(r.scope)
		for _, p := range r.profiles {
			inScope += 1 + protowire.SizeBytes(p.bytes())
		}
		b = appendLength(b, 1, len(r.resource)+1+protowire.SizeBytes(inScope))
		b = append(b, r.resource...)
		b = appendLength(b, 2, inScope)
		b = append(b, r.scope...)
		for _, p := range r.profiles {
			b = appendLength(b, 2, p.bytes())
			b = append(b, p.before...)
			b = append(b, m.encoded[p.of][p.from:p.to]...)
			b = append(b, p.after...)
		}
	}
	b = appendLength(b, 2, m.dictionary.bytes())
	return m.dictionary.encode(b)
}

// mark is what there is in a message, to go back to.
type mark struct {
	sizes
	resources, samples, bytes int
	taken                     uint64
	encoded                   [2]int
	counts, values            *profileOf
	commented                 bool
}

func (m *message) mark() mark {
	return mark{m.dictionary.sizes(), len(m.resources), m.samples, m.bytes, m.taken, [2]int{len(m.encoded[0]), len(m.encoded[1])}, m.counts, m.values, m.commented}
}

// cut takes away what came since. Nothing can be added afterwards: see dictionary.cut.
func (m *message) cut(to mark) {
	m.dictionary.cut(to.sizes)
	m.resources, m.samples, m.bytes, m.taken, m.commented = m.resources[:to.resources], to.samples, to.bytes, to.taken, to.commented
	m.counts, m.values = to.counts, to.values
	for i, p := range []*profileOf{m.counts, m.values} {
		m.encoded[i] = m.encoded[i][:to.encoded[i]]
		if p != nil {
			p.to = to.encoded[i]
		}
	}
}

// resource begins that of the process under way.
func (m *message) resource(b *batch) {
	k := &b.process
	own := [][2]string{
		{keyServiceName, cmp.Or(k.service, serviceName(k.exe, k.comm))},
		{keyTitle, k.comm}, {keyExecutablePath, k.exe}, {keyCgroup, k.cgroup}, {keyContainerID, k.containerID}, {keyPodUID, k.podUID}, {keyUnit, k.unit},
	}
	if k.exe != "" {
		own = append(own, [2]string{keyExecutableName, path.Base(k.exe)})
	}
	var attributes []*commonpb.KeyValue
	e := b.encoder
	known := make(map[string]string)
	for _, pair := range own {
		if pair[1] != "" {
			known[e.name(pair[0])] = pair[0]
			attributes = append(attributes, keyValue(pair[0], stringValue(m.value(b, pair[1]))))
		}
	}
	if k.pid != 0 {
		known[e.name(keyPID)] = keyPID
		attributes = append(attributes, keyValue(keyPID, intValue(int64(k.pid))))
	}
	said, dropped := m.said(b, known)
	attributes = append(attributes, said...)
	if k.pid != 0 && known[e.name(keyInstanceID)] == "" {
		known[e.name(keyInstanceID)] = keyInstanceID
		attributes = append(attributes, keyValue(keyInstanceID, stringValue(m.value(b, instanceID(b.encoder.options.Resource[keyHostName], int64(k.pid))))))
	}
	for _, a := range e.extra {
		if known[e.name(a.Key)] == "" {
			attributes = append(attributes, keyValue(a.Key, stringValue(m.value(b, a.Value))))
		}
	}
	m.known = known
	r := resourceProfiles{
		resource: m.marshal(&profilespb.ResourceProfiles{Resource: &resourcepb.Resource{Attributes: attributes, DroppedAttributesCount: dropped}}),
		scope:    m.marshal(&profilespb.ScopeProfiles{Scope: &commonpb.InstrumentationScope{Name: scopeName, Version: pprof.Text(b.encoder.options.Version)}}),
	}
	counts := m.profile(b, profile.TypeSamples)
	if len(b.comments) > 0 && !m.commented {
		counts.AttributeIndices = []int32{m.attribute(keyComment, comments(b.comments), "")}
		m.commented = true
	}
	m.counts = m.begin(&r, ofCounts, counts)
	if b.valued && b.profile.Type != profile.TypeSamples {
		m.values = m.begin(&r, ofValues, m.profile(b, b.profile.Type))
	}
	m.resources = append(m.resources, r)
	m.bytes += 2*lengthOf + len(r.resource) + len(r.scope)
}

// begin begins a profile of a resource.
func (m *message) begin(r *resourceProfiles, of int, without *profilespb.Profile) *profileOf {
	p := &profileOf{before: m.marshal(&profilespb.Profile{SampleType: without.SampleType}), of: of, from: len(m.encoded[of]), to: len(m.encoded[of]), startNanos: int64(without.TimeUnixNano)}
	without.SampleType = nil // the one field before the samples
	p.after = m.marshal(without)
	r.profiles = append(r.profiles, p)
	m.bytes += lengthOf + p.bytes()
	return p
}

// marshal encodes a part of the message, whose strings are valid; if not, the message fails.
func (m *message) marshal(part proto.Message) []byte {
	b, err := proto.Marshal(part)
	m.err = cmp.Or(m.err, err)
	return b
}

// said are the attributes of the process under way that it says itself, and notes them as known. Where messages are bounded some are dropped: those that
// say least.
func (m *message) said(b *batch, known map[string]string) (attributes []*commonpb.KeyValue, dropped uint32) {
	e, o := b.encoder, &b.encoder.options
	bytes := o.MaxBytes / 16
	m.left = e.left()
	profilers := maps.Clone(known) // what the profiler says itself is not dropped
	said := b.said
	if e.bounded {
		said = slices.SortedStableFunc(slices.Values(said), func(a, b profile.Attribute) int { return cmp.Compare(identity.Rank(a.Key), identity.Rank(b.Key)) })
	}
	for _, a := range said {
		key, value := e.key(m.text(a.Key)), m.value(b, a.Value)
		name := e.name(key)
		if profilers[name] == key || key == "" || value == "" {
			continue
		}
		other, own := e.names[name]
		switch size := len(key) + len(value); {
		case key == labelTraceID || key == labelSpanID || key == keyComment: // left counts on it that no resource has them
			dropped++
		case known[name] != "" || own && other != key: // the name is taken
			dropped++
		case e.bounded && (!own && m.left == 0 || o.MaxBytes != 0 && size > bytes):
			dropped++
		default:
			if !own {
				m.left--
			}
			bytes -= size
			known[name] = key
			attributes = append(attributes, keyValue(key, stringValue(value)))
		}
	}
	return attributes, dropped
}

// profile begins one. Each message but the first begins a nanosecond later than the one before, and ends with it; so does each process but the first that is
// the same instance of a service.
func (m *message) profile(b *batch, t profile.Type) *profilespb.Profile {
	p, after := b.profile, b.sent+b.nth
	out := &profilespb.Profile{
		SampleType: m.valueType(t.Name, t.Unit), PeriodType: m.valueType(p.Type.Name, p.Type.Unit), Period: p.Period,
		DurationNano: uint64(p.Duration),
	}
	if !p.Start.IsZero() {
		later := min(uint64(after), out.DurationNano)
		out.TimeUnixNano = uint64(p.Start.UnixNano()) + later
		out.DurationNano -= later
	}
	if seed := b.encoder.options.Seed; seed != [16]byte{} {
		out.ProfileId = profileID(seed, p.Start.UnixNano(), b.sent, len(m.resources), t.Name)
	}
	return out
}

// profileID is as good as random, and always the same for the same profile.
func profileID(seed [16]byte, startNanos int64, message, resource int, kind string) []byte {
	text := binary.BigEndian.AppendUint64(seed[:], uint64(startNanos))
	text = binary.BigEndian.AppendUint32(text, uint32(message))
	text = binary.BigEndian.AppendUint32(text, uint32(resource))
	sum := sha256.Sum256(append(text, kind...))
	return sum[:16]
}

func (d *dictionary) valueType(name, unit string) *profilespb.ValueType {
	return &profilespb.ValueType{TypeStrindex: d.string(pprof.Text(name)), UnitStrindex: d.string(pprof.Text(unit))}
}

// sample adds one to the profile of counts, and to that of values where there is one.
func (m *message) sample(b *batch, s *profile.Sample) {
	stack, labels := m.stack(b, s), m.labels(b, s.Labels)
	add := func(to *profileOf, value int64, times []time.Duration) {
		e := appendNumber(m.buffer[:0], 1, uint64(stack))
		e = appendPacked(e, 2, labels.attributes)
		e = appendNumber(e, 3, uint64(labels.link))
		if len(times) == 0 {
			e = appendPacked(e, 4, []int64{value})
		} else {
			e = appendLength(e, 5, 8*len(times))
			for _, at := range times {
				// Not before a profile that begins some nanoseconds later than p: Parca refuses the whole message for one such time.
				e = protowire.AppendFixed64(e, uint64(max(b.profile.Start.Add(at).UnixNano(), to.startNanos)))
			}
		}
		before := len(m.encoded[to.of])
		m.encoded[to.of] = appendBytes(m.encoded[to.of], 2, e)
		to.to = len(m.encoded[to.of])
		m.bytes += to.to - before
		m.buffer = e
		m.samples++
	}
	add(m.counts, s.Count, s.Times)
	if m.values != nil {
		add(m.values, s.Value, nil)
	}
	m.taken += uint64(s.Count)
}

// labels gives what stands at a sample. A link has both ids: one alone is an attribute.
func (m *message) labels(b *batch, l *profile.Labels) labelled {
	if l == nil {
		return labelled{}
	}
	of, ok := m.byLabels[l]
	if !ok {
		of.attributes = m.texts(nil, [2]string{keyThreadName, m.value(b, l.Thread)})
		if l.TID != 0 {
			of.attributes = append(of.attributes, m.attribute(keyThreadID, intValue(int64(l.TID)), ""))
		}
		if b.encoder.options.ByService {
			if l.PID != 0 {
				of.attributes = append(of.attributes, m.attribute(keyPID, intValue(int64(l.PID)), ""))
			}
			of.attributes = m.texts(of.attributes, [2]string{keyTitle, m.value(b, l.Comm)}, [2]string{keyExecutablePath, m.value(b, l.Exe)},
				[2]string{keyContainerID, m.value(b, l.ContainerID)}, [2]string{keyPodUID, m.value(b, l.PodUID)})
		}
		if of.link = m.link(l.TraceID, l.SpanID); of.link == 0 {
			of.attributes = m.texts(of.attributes, [2]string{labelTraceID, m.text(l.TraceID)}, [2]string{labelSpanID, m.text(l.SpanID)})
		}
		e, left := b.encoder, m.left
		seen := make(map[string]bool, len(l.Further))
		for _, label := range l.Further {
			key := e.key(pprof.Text(label.Key))
			name := e.name(key)
			_, own := e.names[name]
			if said := m.known[name]; pprof.Reserved(key) || own || seen[name] || e.bounded && said != "" && said != key {
				continue
			}
			if e.bounded && left == 0 { // for a receiver, which takes so many
				break
			}
			left--
			seen[name] = true
			of.attributes = m.texts(of.attributes, [2]string{key, m.value(b, label.Value)})
		}
		m.byLabels[l] = of
	}
	return of
}

func (m *message) stack(b *batch, s *profile.Sample) int32 {
	end := 0
	for _, side := range []*profile.Stack{s.Kernel, s.User} {
		if side == nil {
			continue
		}
		numbers := b.encoder.numbers.stack(side)
		if most := end + 8*len(numbers); most > len(m.packed) {
			m.packed = append(m.packed, make([]byte, most)...)
		}
		packed := m.packed
		for _, n := range numbers {
			i := *at(&m.locationOf, n)
			if i == 0 {
				i = m.location(b, n)
			}
			binary.LittleEndian.PutUint64(packed[end:], i) // the next one stands on what is too much
			end += int(i >> 56)
		}
	}
	return m.packedStack(m.packed[:end])
}

// location adds a location by its number.
func (m *message) location(b *batch, number uint32) uint64 {
	l := &b.encoder.numbers.locations[number]
	m.lines = m.lines[:0]
	for _, line := range l.lines {
		m.lines = append(m.lines, lineParts{function: m.function(b, line.function), line: line.line})
	}
	kind, ok := m.byKind[l.kind]
	if !ok {
		kind = m.texts(nil, [2]string{keyFrameType, pprof.Text(string(l.kind))})
		m.byKind[l.kind] = kind
	}
	var varint [8]byte
	m.encodeLocation(locationParts{m.mapping(l.mapping), l.address, m.lines, kind})
	varint[7] = byte(binary.PutUvarint(varint[:], uint64(m.add(tableLocations))))
	of := at(&m.locationOf, number)
	*of = binary.LittleEndian.Uint64(varint[:])
	return *of
}

// function gives the index of a function by its number.
func (m *message) function(b *batch, number uint32) int32 {
	if i := at(&m.functionOf, number); *i != 0 {
		return *i
	}
	f := &b.encoder.numbers.functions[number]
	if *f == (numberedFunction{}) {
		return 0
	}
	m.encodeFunction(functionParts{m.string(f.name), m.string(f.system), m.string(f.file), f.startLine})
	i := m.addFunction()
	*at(&m.functionOf, number) = i
	return i
}

// at is the place in a list that has one for each number.
func at[T int32 | uint64](list *[]T, number uint32) *T {
	if int(number) >= len(*list) {
		*list = append(*list, make([]T, max(int(number)+1-len(*list), len(*list), 256))...)
	}
	return &(*list)[number]
}

func (m *message) mapping(of *profile.Mapping) int32 {
	if of == nil {
		return 0
	}
	if i, ok := m.byMapping[of]; ok {
		return i
	}
	attributes := m.texts(nil, [2]string{keyOfBuildID(of.BuildID), m.text(of.BuildID)}, [2]string{keyEndsHash, m.text(of.EndsHash)})
	i := m.internMessage(tableMappings, &profilespb.Mapping{
		MemoryStart: of.Start, MemoryLimit: of.Limit, FileOffset: of.Offset, FilenameStrindex: m.string(m.text(of.Path)),
		// As in pprof files: every frame has a name by now, if only "[file+0xoffset]".
		AttributeIndices: m.flags(attributes, flag{keyHasFunctions, true}, flag{keyHasFilenames, of.HasLines},
			flag{keyHasLineNumbers, of.HasLines}, flag{keyHasInlineFrames, of.HasLines}),
	})
	m.byMapping[of] = i
	return i
}

// keyOfBuildID tells Go's build ids, hashes in base64 between slashes, from those of the linker.
func keyOfBuildID(id string) string {
	if strings.Contains(id, "/") {
		return keyBuildIDGo
	}
	return keyBuildIDGNU
}

// text makes a string fit for the message, and cuts it where it would take too much of it.
func (m *message) text(s string) string { return cutText(s, m.maxText) }

// value makes an attribute's value fit for the message: no longer than Pyroscope takes where it is for receivers.
func (m *message) value(b *batch, s string) string {
	if !b.encoder.bounded {
		return m.text(s)
	}
	return cutText(s, min(cmp.Or(m.maxText, receiversMaxValue), receiversMaxValue))
}

// cutText makes a string fit for messages; a limit of 0 is none.
func cutText(s string, limit int) string {
	s = pprof.Text(s)
	if limit := cmp.Or(limit, len(s)); len(s) > limit {
		const mark = "..."
		s = strings.ToValidUTF8(s[:limit-len(mark)], "") + mark // it may have been cut within a letter
	}
	return s
}
