package otlp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

// table is one of a dictionary's, as it goes on the wire: each entry with its tag and length before it. Equal entries are one, and that at index 0 is empty.
type table struct {
	encoded []byte
	entries int32
	index   map[string]int32 // by the entry, encoded
}

// Numbers of the tables in ProfilesDictionary.
const (
	tableMappings protowire.Number = 1 + iota
	tableLocations
	tableFunctions
	tableLinks
	tableStrings
	tableAttributes
	tableStacks
	tablesEnd
)

// dictionary is what the samples of one message share. What profiles are made of goes to its tables as bytes at once: messages for them, tens of thousands of small
// parts, took most of the time and memory of encoding. Not safe for concurrent use.
type dictionary struct {
	tables [tablesEnd]table
	buffer []byte // of the entry under way

	// stacks finds stacks, of which there are many, and long ones: the next free number from the hash of their entry on. stackEnds are where they end in their table.
	stacks    map[uint64]int32
	stackEnds []int
}

// functionParts are all that a function is made of.
type functionParts struct {
	name, system, file int32
	startLine          int64
}

func newDictionary() *dictionary {
	d := new(dictionary)
	d.begin()
	return d
}

// begin begins another one, in the memory of the last.
func (d *dictionary) begin() {
	for i := range d.tables {
		t := &d.tables[i]
		if t.index == nil {
			t.index = make(map[string]int32)
		}
		clear(t.index)
		t.encoded, t.entries = t.encoded[:0], 0
	}
	if d.stacks == nil {
		d.stacks = make(map[uint64]int32)
	}
	clear(d.stacks)
	d.stackEnds = d.stackEnds[:0]
	d.string("")
	for _, t := range []protowire.Number{tableMappings, tableLocations, tableFunctions, tableLinks, tableAttributes} {
		d.buffer = d.buffer[:0]
		d.intern(t)
	}
	d.stack(nil)
}

// encode appends the dictionary to b.
func (d *dictionary) encode(b []byte) []byte {
	for i := range d.tables {
		b = append(b, d.tables[i].encoded...)
	}
	return b
}

func (d *dictionary) message() *profilespb.ProfilesDictionary {
	m := new(profilespb.ProfilesDictionary)
	if err := proto.Unmarshal(d.encode(nil), m); err != nil {
		panic(err) // it was just encoded
	}
	return m
}

// bytes is how many all tables take.
func (d *dictionary) bytes() (n int) {
	for i := range d.tables {
		n += len(d.tables[i].encoded)
	}
	return n
}

// sizes is how much there is in each table, to go back to.
type sizes [tablesEnd]struct {
	bytes   int
	entries int32
}

func (d *dictionary) sizes() (s sizes) {
	for i := range d.tables {
		s[i].bytes, s[i].entries = len(d.tables[i].encoded), d.tables[i].entries
	}
	return s
}

// cut takes away what came since. Nothing can be added afterwards: the indices of what went are still known.
func (d *dictionary) cut(s sizes) {
	for i := range d.tables {
		d.tables[i].encoded, d.tables[i].entries = d.tables[i].encoded[:s[i].bytes], s[i].entries
	}
}

// add gives the index of the entry in the buffer, which is known to be new.
func (d *dictionary) add(number protowire.Number) int32 {
	t := &d.tables[number]
	t.encoded = appendBytes(t.encoded, number, d.buffer)
	t.entries++
	return t.entries - 1
}

// intern gives the index of the entry in the buffer.
func (d *dictionary) intern(number protowire.Number) int32 {
	i, ok := d.tables[number].index[string(d.buffer)]
	if !ok {
		i = d.add(number)
		d.tables[number].index[string(d.buffer)] = i
	}
	return i
}

func (d *dictionary) internMessage(number protowire.Number, m proto.Message) int32 {
	d.buffer, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(d.buffer[:0], m) // its strings are valid
	return d.intern(number)
}

func (d *dictionary) string(s string) int32 {
	t := &d.tables[tableStrings]
	i, ok := t.index[s]
	if !ok {
		d.buffer = append(d.buffer[:0], s...)
		i = d.add(tableStrings)
		t.index[s] = i
	}
	return i
}

var stackSeed = maphash.MakeSeed()

// stack gives the index of a stack of these locations.
func (d *dictionary) stack(locations []int32) int32 {
	var packed []byte
	for _, l := range locations {
		packed = protowire.AppendVarint(packed, uint64(l))
	}
	return d.packedStack(packed)
}

// packedStack gives the index of a stack whose locations stand one after the other, as they do on the wire.
func (d *dictionary) packedStack(locations []byte) int32 {
	t := &d.tables[tableStacks]
	begin, size := len(t.encoded), 0
	if len(locations) > 0 {
		size = 1 + protowire.SizeBytes(len(locations))
	}
	t.encoded = appendLength(t.encoded, tableStacks, size)
	if size > 0 {
		t.encoded = appendBytes(t.encoded, 1, locations)
	}
	hash := maphash.Bytes(stackSeed, locations)
	for i, ok := d.stacks[hash]; ok; i, ok = d.stacks[hash] {
		from := 0
		if i > 0 {
			from = d.stackEnds[i-1]
		}
		if bytes.Equal(t.encoded[from:d.stackEnds[i]], t.encoded[begin:]) {
			t.encoded = t.encoded[:begin]
			return i
		}
		hash++
	}
	d.stacks[hash] = t.entries
	d.stackEnds = append(d.stackEnds, len(t.encoded))
	t.entries++
	return t.entries - 1
}

// encodeFunction puts a function into the buffer.
func (d *dictionary) encodeFunction(parts functionParts) {
	b := appendNumber(d.buffer[:0], 1, uint64(parts.name))
	b = appendNumber(b, 2, uint64(parts.system))
	b = appendNumber(b, 3, uint64(parts.file))
	d.buffer = appendNumber(b, 4, uint64(parts.startLine))
}

// addFunction gives the index of the function in the buffer, which is known to be new. It stands there twice, and lines refer to the second: Parca
// (up to v0.28.0 at least) takes the entry before that which a line refers to, and would call each function by another's name. The protocol allows
// duplicates, as long as they mean nothing.
func (d *dictionary) addFunction() int32 {
	d.add(tableFunctions)
	return d.add(tableFunctions)
}

// locationParts are all that a location is made of.
type locationParts struct {
	mapping    int32
	address    uint64
	lines      []lineParts
	attributes []int32
}

type lineParts struct {
	function     int32
	line, column int64
}

// encodeLocation puts a location into the buffer.
func (d *dictionary) encodeLocation(parts locationParts) {
	b := appendNumber(d.buffer[:0], 1, uint64(parts.mapping))
	b = appendNumber(b, 2, parts.address)
	for _, l := range parts.lines {
		var line [3 * (1 + binary.MaxVarintLen64)]byte
		b = appendBytes(b, 3, appendNumber(appendNumber(appendNumber(line[:0], 1, uint64(l.function)), 2, uint64(l.line)), 3, uint64(l.column)))
	}
	d.buffer = appendPacked(b, 4, parts.attributes)
}

func (d *dictionary) attribute(key string, value *commonpb.AnyValue, unit string) int32 {
	return d.internMessage(tableAttributes, &profilespb.KeyValueAndUnit{KeyStrindex: d.string(key), Value: value, UnitStrindex: d.string(unit)})
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
	return d.internMessage(tableLinks, &profilespb.Link{TraceId: trace, SpanId: span})
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
