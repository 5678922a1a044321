package otlp

import (
	"errors"
	"fmt"
	"io"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

const (
	// MaxBytes is how large a message may be, decompressed, and also once its references to strings are resolved.
	MaxBytes = pprof.MaxBytes
	// maxMemory bounds what a message takes once it is decoded, and again what it becomes in another form.
	maxMemory = pprof.MaxMemory
	// maxDepth is how deep messages may stand in one another. Those of profiles do five times; the rest is for values of attributes.
	maxDepth = 48
	// maxTypeBytes bounds the names of types of values, which are compared with one another.
	maxTypeBytes = 1024
)

// Parse reads a message, ProfilesData or ExportProfilesServiceRequest, which are the same in bytes, gzipped or not, of whatever tool wrote it.
// Keys and values that refer to the dictionary are put where they are used; fields that are not known are kept.
//
// Files are not trusted: their size and what they take in memory is bounded, and an error says what is wrong.
func Parse(r io.Reader) (*Data, error) {
	d, err := parse(r)
	if err != nil {
		return nil, fmt.Errorf("read OTLP profile: %w", err)
	}
	return d, nil
}

func parse(r io.Reader) (*Data, error) {
	data, err := pprof.ReadFile(r)
	if err != nil {
		return nil, err
	}
	memory := budget(maxMemory)
	message := new(profilespb.ProfilesData)
	if err := memory.decoded(data, message.ProtoReflect().Descriptor(), 1); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(data, message); err != nil {
		return nil, fmt.Errorf("it is not sound, or a text in it is no UTF-8: %w", err)
	}
	if message.Dictionary == nil {
		message.Dictionary = new(profilespb.ProfilesDictionary)
	}
	if err := check(message); err != nil {
		return nil, err
	}
	if err := resolve(message); err != nil {
		return nil, err
	}
	return &Data{message}, nil
}

var errNotOTLP = errors.New("it is no ProfilesData message")

// budget is how many bytes, or other units of memory and time, may still be spent.
type budget int64

var errTooMuch = fmt.Errorf("it would take more than %d MiB of memory", maxMemory>>20)

func (b *budget) spend(n int) error {
	if *b -= budget(n); *b < 0 {
		return errTooMuch
	}
	return nil
}

// decoded spends what a message takes once it is decoded, from above.
func (b *budget) decoded(data []byte, d protoreflect.MessageDescriptor, depth int) error {
	const (
		message = 256 // the largest message, its pointer, and slices that grow by doubling
		element = 16  // of packed numbers, of which each takes a byte or more
	)
	if depth > maxDepth {
		return fmt.Errorf("its messages stand in one another more than %d deep", maxDepth)
	}
	if err := b.spend(message); err != nil {
		return err
	}
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errNotOTLP
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(number, wire, data); n < 0 {
			return errNotOTLP
		}
		value := data[:n]
		data = data[n:]
		field := d.Fields().ByNumber(number)
		var err error
		switch {
		case wire == protowire.BytesType && field != nil && field.Message() != nil:
			inner, _ := protowire.ConsumeBytes(value)
			err = b.decoded(inner, field.Message(), depth+1)
		case field != nil && field.IsList() && field.Kind() != protoreflect.StringKind:
			err = b.spend(element * len(value))
		default:
			err = b.spend(2*element + 2*len(value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check makes sure that all indices lead somewhere, and that what stands at index 0 of the tables means nothing.
func check(m *profilespb.ProfilesData) error {
	d := m.Dictionary
	if err := checkFirst(d); err != nil {
		return err
	}
	c := checker{dictionary: d}
	c.tables()
	for _, r := range m.ResourceProfiles {
		for _, s := range r.ScopeProfiles {
			for _, p := range s.Profiles {
				c.profile(p)
			}
		}
	}
	return c.err
}

// checkFirst puts the empty entries to index 0 where a table has none at all. Versions of the protocol before v1.8 had other entries there.
func checkFirst(d *profilespb.ProfilesDictionary) error {
	if len(d.LinkTable) > 0 {
		if l := d.LinkTable[0]; zero(l.TraceId) && zero(l.SpanId) {
			l.TraceId, l.SpanId = nil, nil // some fill them with zeros
		}
	}
	if len(d.StringTable) == 0 {
		d.StringTable = []string{""}
	}
	bad := ""
	if d.StringTable[0] != "" {
		bad = "string_table"
	}
	first(&d.AttributeTable, "attribute_table", &bad)
	first(&d.MappingTable, "mapping_table", &bad)
	first(&d.FunctionTable, "function_table", &bad)
	first(&d.LocationTable, "location_table", &bad)
	first(&d.StackTable, "stack_table", &bad)
	first(&d.LinkTable, "link_table", &bad)
	if bad != "" {
		return fmt.Errorf("%s[0] is not empty: it was written by a version of the protocol that is not understood", bad)
	}
	return nil
}

func first[M proto.Message](table *[]M, name string, bad *string) {
	if len(*table) > 0 && !empty((*table)[0].ProtoReflect()) {
		*bad = name
		return
	}
	var none M
	entry := none.ProtoReflect().New().Interface().(M)
	if len(*table) == 0 {
		*table = []M{entry}
	}
	(*table)[0] = entry
}

// empty says whether a message holds nothing but messages that hold nothing: pdata writes an attribute's value so.
func empty(m protoreflect.Message) bool {
	none := len(m.GetUnknown()) == 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		none = none && f.Message() != nil && !f.IsList() && empty(v.Message())
		return none
	})
	return none
}

func zero(id []byte) bool {
	for _, b := range id {
		if b != 0 {
			return false
		}
	}
	return true
}

// checker keeps the first error.
type checker struct {
	dictionary *profilespb.ProfilesDictionary
	err        error
}

// index says so where one leads out of its table.
func (c *checker) index(i int32, length int, table string) {
	if c.err == nil && (i < 0 || int(i) >= length) {
		c.err = fmt.Errorf("index %d leads out of %s, which has %d entries", i, table, length)
	}
}

// id says so where one has another length than it has to have, or none.
func (c *checker) id(id []byte, length int, of string) {
	if c.err == nil && len(id) != 0 && len(id) != length {
		c.err = fmt.Errorf("a link has a %s id of %d bytes, not of %d", of, len(id), length)
	}
}

func (c *checker) strings(indices ...int32) {
	for _, i := range indices {
		c.index(i, len(c.dictionary.StringTable), "string_table")
	}
}

func (c *checker) attributes(indices []int32) {
	for _, i := range indices {
		c.index(i, len(c.dictionary.AttributeTable), "attribute_table")
	}
}

func (c *checker) tables() {
	d := c.dictionary
	for _, a := range d.AttributeTable {
		c.strings(a.KeyStrindex, a.UnitStrindex)
	}
	for _, m := range d.MappingTable {
		c.strings(m.FilenameStrindex)
		c.attributes(m.AttributeIndices)
	}
	for _, f := range d.FunctionTable {
		c.strings(f.NameStrindex, f.SystemNameStrindex, f.FilenameStrindex)
	}
	for _, l := range d.LocationTable {
		c.index(l.MappingIndex, len(d.MappingTable), "mapping_table")
		c.attributes(l.AttributeIndices)
		for _, line := range l.Lines {
			c.index(line.FunctionIndex, len(d.FunctionTable), "function_table")
		}
	}
	for _, l := range d.LinkTable {
		c.id(l.TraceId, 16, "trace")
		c.id(l.SpanId, 8, "span")
	}
	for _, s := range d.StackTable {
		for _, l := range s.LocationIndices {
			c.index(l, len(d.LocationTable), "location_table")
		}
	}
}

func (c *checker) profile(p *profilespb.Profile) {
	for _, t := range []*profilespb.ValueType{p.SampleType, p.PeriodType} {
		if t != nil {
			c.strings(t.TypeStrindex, t.UnitStrindex)
		}
		if c.err == nil && len(c.dictionary.StringTable[t.GetTypeStrindex()])+len(c.dictionary.StringTable[t.GetUnitStrindex()]) > maxTypeBytes {
			c.err = fmt.Errorf("a type of values has a name of more than %d bytes", maxTypeBytes)
		}
	}
	c.attributes(p.AttributeIndices)
	for _, s := range p.Samples {
		c.index(s.StackIndex, len(c.dictionary.StackTable), "stack_table")
		c.index(s.LinkIndex, len(c.dictionary.LinkTable), "link_table")
		c.attributes(s.AttributeIndices)
		switch values, times := len(s.Values), len(s.TimestampsUnixNano); {
		case c.err != nil:
		case values == 0 && times == 0:
			c.err = errors.New("a sample has neither values nor timestamps: it was written by another version of the protocol, or values were lost on the way")
		case values > 0 && times > 0 && values != times:
			c.err = fmt.Errorf("a sample has %d values and %d timestamps", values, times)
		}
	}
}

// resolve puts keys and values that refer to the dictionary where they are used.
func resolve(m *profilespb.ProfilesData) error {
	r := resolver{strings: m.Dictionary.StringTable, left: MaxBytes}
	for _, a := range m.Dictionary.AttributeTable {
		if err := r.value(a.Value); err != nil {
			return err
		}
	}
	for _, rp := range m.ResourceProfiles {
		if err := r.list(rp.GetResource().GetAttributes()); err != nil {
			return err
		}
		for _, sp := range rp.ScopeProfiles {
			if err := r.list(sp.GetScope().GetAttributes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolver bounds how large the message grows: references to a long string are short.
type resolver struct {
	strings []string
	left    budget
}

func (r *resolver) string(i int32) (string, error) {
	if i < 0 || int(i) >= len(r.strings) {
		return "", fmt.Errorf("index %d leads out of string_table, which has %d entries", i, len(r.strings))
	}
	if r.left.spend(len(r.strings[i])) != nil {
		return "", fmt.Errorf("its attributes are larger than %d MiB once their references are resolved", MaxBytes>>20)
	}
	return r.strings[i], nil
}

func (r *resolver) list(attributes []*commonpb.KeyValue) error {
	for _, a := range attributes {
		if a.KeyStrindex != 0 {
			key, err := r.string(a.KeyStrindex)
			if err != nil {
				return err
			}
			a.Key, a.KeyStrindex = key, 0
		}
		if err := r.value(a.Value); err != nil {
			return err
		}
	}
	return nil
}

// value goes as deep as the message does, which is bounded.
func (r *resolver) value(v *commonpb.AnyValue) error {
	switch of := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValueStrindex:
		text, err := r.string(of.StringValueStrindex)
		if err != nil {
			return err
		}
		v.Value = &commonpb.AnyValue_StringValue{StringValue: text}
	case *commonpb.AnyValue_ArrayValue:
		for _, element := range of.ArrayValue.GetValues() {
			if err := r.value(element); err != nil {
				return err
			}
		}
	case *commonpb.AnyValue_KvlistValue:
		return r.list(of.KvlistValue.GetValues())
	}
	return nil
}
