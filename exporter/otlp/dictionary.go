package otlp

import (
	"encoding/hex"
	"math/bits"
	"slices"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

// table is one of a dictionary's: equal entries are one, and that at index 0 is empty.
type table[T any] struct {
	entries []T
	index   map[string]int32 // by what makes entries equal
}

// dictionary is what the samples of one message share. Not safe for concurrent use.
type dictionary struct {
	strings    table[string]
	attributes table[*profilespb.KeyValueAndUnit]
	mappings   table[*profilespb.Mapping]
	functions  table[*profilespb.Function]
	locations  table[*profilespb.Location]
	stacks     table[*profilespb.Stack]
	links      table[*profilespb.Link]
	bytes      int // of all entries, encoded
	buffer     []byte

	// byHash finds stacks, of which there are many, and long ones: the next free number from the hash of their locations on.
	byHash map[uint64]int32
	// byParts finds functions.
	byParts map[functionParts]int32

	stackSlab    slab[profilespb.Stack]
	locationSlab slab[profilespb.Location]
	lineSlab     slab[profilespb.Line]
	functionSlab slab[profilespb.Function]
}

// functionParts are all that a function is made of.
type functionParts struct {
	name, system, file int32
	startLine          int64
}

// slab gives out pieces of memory that live as long as one another: a message has tens of thousands of small parts.
type slab[T any] struct{ free []T }

func (s *slab[T]) next() *T {
	if len(s.free) == 0 {
		s.free = make([]T, 128)
	}
	p := &s.free[0]
	s.free = s.free[1:]
	return p
}

// chunk gives out room for indices.
type chunk struct{ free []int32 }

func (c *chunk) take(n int) []int32 {
	if n > len(c.free) {
		c.free = make([]int32, max(n, 1<<14))
	}
	taken := c.free[:0:n]
	c.free = c.free[n:]
	return taken
}

// newDictionary makes one for about so many stacks.
func newDictionary(stacks int) *dictionary {
	d := &dictionary{byHash: make(map[uint64]int32, stacks), byParts: make(map[functionParts]int32)}
	d.string("")
	intern(d, &d.attributes, new(profilespb.KeyValueAndUnit))
	intern(d, &d.mappings, new(profilespb.Mapping))
	d.function(functionParts{})
	d.location(new(profilespb.Location))
	d.stack(nil)
	intern(d, &d.links, new(profilespb.Link))
	return d
}

func (d *dictionary) message() *profilespb.ProfilesDictionary {
	return &profilespb.ProfilesDictionary{
		StringTable: d.strings.entries, AttributeTable: d.attributes.entries, MappingTable: d.mappings.entries,
		FunctionTable: d.functions.entries, LocationTable: d.locations.entries, StackTable: d.stacks.entries, LinkTable: d.links.entries,
	}
}

// sizes are how many entries there are, to go back to.
type sizes struct{ strings, attributes, mappings, functions, locations, stacks, links, bytes int }

func (d *dictionary) sizes() sizes {
	return sizes{
		len(d.strings.entries), len(d.attributes.entries), len(d.mappings.entries), len(d.functions.entries),
		len(d.locations.entries), len(d.stacks.entries), len(d.links.entries), d.bytes,
	}
}

// cut takes away what came since. Nothing can be added afterwards: the indices of what went are still known.
func (d *dictionary) cut(s sizes) {
	d.strings.entries, d.attributes.entries = d.strings.entries[:s.strings], d.attributes.entries[:s.attributes]
	d.mappings.entries, d.functions.entries = d.mappings.entries[:s.mappings], d.functions.entries[:s.functions]
	d.locations.entries, d.stacks.entries = d.locations.entries[:s.locations], d.stacks.entries[:s.stacks]
	d.links.entries, d.bytes = d.links.entries[:s.links], s.bytes
}

// add gives the index of an entry that takes so many bytes, encoded. Equal entries have the same key.
func add[T any](d *dictionary, t *table[T], key string, entry T, bytes int) int32 {
	if t.index == nil {
		t.index = make(map[string]int32)
	}
	i := int32(len(t.entries))
	t.index[key] = i
	t.entries = append(t.entries, entry)
	d.bytes += 1 + protowire.SizeBytes(bytes) // the tags of the tables take a byte
	return i
}

func (d *dictionary) string(s string) int32 {
	if i, ok := d.strings.index[s]; ok {
		return i
	}
	return add(d, &d.strings, s, s, len(s))
}

// intern gives the index of a message that is equal to m.
func intern[M proto.Message](d *dictionary, t *table[M], m M) int32 {
	d.buffer, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(d.buffer[:0], m) // its strings are valid
	if i, ok := t.index[string(d.buffer)]; ok {
		return i
	}
	return add(d, t, string(d.buffer), m, len(d.buffer))
}

// stack gives the index of a stack of these locations.
func (d *dictionary) stack(locations []int32) int32 {
	size := 0
	hash := uint64(len(locations))
	for _, l := range locations {
		hash = (bits.RotateLeft64(hash, 5) ^ uint64(l)) * 0x9e3779b97f4a7c15 // of indices that nobody outside chooses
		size += protowire.SizeVarint(uint64(l))
	}
	for {
		i, ok := d.byHash[hash]
		if !ok {
			break
		}
		if slices.Equal(d.stacks.entries[i].LocationIndices, locations) {
			return i
		}
		hash++
	}
	i := int32(len(d.stacks.entries))
	d.byHash[hash] = i
	out := d.stackSlab.next()
	out.LocationIndices = locations
	d.stacks.entries = append(d.stacks.entries, out)
	if len(locations) > 0 {
		size = 1 + protowire.SizeBytes(size)
	}
	d.bytes += 1 + protowire.SizeBytes(size)
	return i
}

// function gives the index of a function.
func (d *dictionary) function(parts functionParts) int32 {
	i, ok := d.byParts[parts]
	if !ok {
		i = d.newFunction(parts)
		d.byParts[parts] = i
	}
	return i
}

// newFunction adds one that is known to be new.
func (d *dictionary) newFunction(parts functionParts) int32 {
	i := int32(len(d.functions.entries))
	out := d.functionSlab.next()
	out.NameStrindex, out.SystemNameStrindex, out.FilenameStrindex, out.StartLine = parts.name, parts.system, parts.file, parts.startLine
	d.functions.entries = append(d.functions.entries, out)
	d.bytes += 1 + protowire.SizeBytes(sizeOf(uint64(parts.name))+sizeOf(uint64(parts.system))+sizeOf(uint64(parts.file))+sizeOf(uint64(parts.startLine)))
	return i
}

// sizeOf is what a field of a number takes whose tag is a byte: nothing where it is 0.
func sizeOf(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// location gives the index of a location that is equal.
func (d *dictionary) location(l *profilespb.Location) int32 { return intern(d, &d.locations, l) }

// newLocation adds one that is known to be new.
func (d *dictionary) newLocation(l *profilespb.Location) int32 {
	size := sizeOf(uint64(l.MappingIndex)) + sizeOf(l.Address)
	for _, line := range l.Lines {
		size += 1 + protowire.SizeBytes(sizeOf(uint64(line.FunctionIndex))+sizeOf(uint64(line.Line))+sizeOf(uint64(line.Column)))
	}
	if len(l.AttributeIndices) > 0 {
		attributes := 0
		for _, a := range l.AttributeIndices {
			attributes += protowire.SizeVarint(uint64(a))
		}
		size += 1 + protowire.SizeBytes(attributes)
	}
	i := int32(len(d.locations.entries))
	d.locations.entries = append(d.locations.entries, l)
	d.bytes += 1 + protowire.SizeBytes(size)
	return i
}

func (d *dictionary) attribute(key string, value *commonpb.AnyValue, unit string) int32 {
	return intern(d, &d.attributes, &profilespb.KeyValueAndUnit{KeyStrindex: d.string(key), Value: value, UnitStrindex: d.string(unit)})
}

// texts adds those attributes to a list that are not "".
func (d *dictionary) texts(list []int32, pairs ...[2]string) []int32 {
	for _, pair := range pairs {
		if pair[1] != "" {
			list = append(list, d.attribute(pair[0], stringValue(pair[1]), ""))
		}
	}
	return list
}

// flag is an attribute that is there or not.
type flag struct {
	key string
	set bool
}

// flags adds those attributes to a list that are true.
func (d *dictionary) flags(list []int32, flags ...flag) []int32 {
	for _, f := range flags {
		if f.set {
			list = append(list, d.attribute(f.key, boolValue(true), ""))
		}
	}
	return list
}

// link gives the index of what is known by two ids in hexadecimal; 0 where they are none. Ids of zeros alone are none, and those in other
// letters would be read as others.
func (d *dictionary) link(traceID, spanID string) int32 {
	trace, span := id(traceID, 16), id(spanID, 8)
	if trace == nil || span == nil {
		return 0
	}
	return intern(d, &d.links, &profilespb.Link{TraceId: trace, SpanId: span})
}

func id(text string, size int) []byte {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != size || strings.ToLower(text) != text || strings.Count(text, "0") == len(text) {
		return nil
	}
	return b
}

func stringValue(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func intValue(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}

func boolValue(b bool) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: b}}
}

func arrayValue(values ...*commonpb.AnyValue) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: values}}}
}

func keyValue(key string, value *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: value}
}

// comments are an attribute's value.
func comments(texts []string) *commonpb.AnyValue {
	values := make([]*commonpb.AnyValue, len(texts))
	for i, t := range texts {
		values[i] = stringValue(pprof.Text(t))
	}
	return arrayValue(values...)
}
