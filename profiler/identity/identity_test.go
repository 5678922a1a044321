package identity

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

func said(service string, pairs ...string) Said {
	s := Said{Service: service}
	for i := 0; i < len(pairs); i += 2 {
		s.Attributes = append(s.Attributes, profile.Attribute{Key: pairs[i], Value: pairs[i+1]})
	}
	return s
}

func TestFromEnviron(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	for name, c := range map[string]struct {
		environ string
		want    Said
	}{
		"nothing":                  {"", Said{}},
		"others":                   {"PATH=/bin\x00PASSWORD=secret\x00", Said{}},
		"service":                  {"A=b\x00OTEL_SERVICE_NAME=checkout\x00C=d", said("checkout")},
		"attributes":               {"OTEL_RESOURCE_ATTRIBUTES=service.name=a,service.version=1.2,team=b\x00", said("a", "service.version", "1.2", "team", "b")},
		"the variable for it wins": {"OTEL_RESOURCE_ATTRIBUTES=service.name=a,x=y\x00OTEL_SERVICE_NAME=b\x00", said("b", "x", "y")},
		"unset":                    {"OTEL_SERVICE_NAME=\x00OTEL_RESOURCE_ATTRIBUTES=service.name=a\x00", said("a")},
		"encoded":                  {"OTEL_RESOURCE_ATTRIBUTES=team=shop%20floor%2C1, a = b%3Dc", said("", "a", "b=c", "team", "shop floor,1")},
		"malformed pairs":          {"OTEL_RESOURCE_ATTRIBUTES=,a,=b,c=,d=%zz,e=f=g,%ff=h,i=%ff", said("", "e", "f=g")},
		"the first counts":         {"OTEL_SERVICE_NAME=a\x00OTEL_SERVICE_NAME=b\x00OTEL_RESOURCE_ATTRIBUTES=k=1,k=2\x00OTEL_RESOURCE_ATTRIBUTES=l=3", said("a", "k", "1")},
		"names that only begin so": {"OTEL_SERVICE_NAME_X=a\x00XOTEL_SERVICE_NAME=b\x00OTEL_SERVICE_NAME", Said{}},
		"too long":                 {"OTEL_SERVICE_NAME=" + long + "\x00OTEL_RESOURCE_ATTRIBUTES=" + long + "=1,a=" + long + ",b=c", said("", "b", "c")},
		"no UTF-8":                 {"OTEL_SERVICE_NAME=\xff\x00OTEL_RESOURCE_ATTRIBUTES=a=\xff", Said{}},
		"what the kernel knows":    {"OTEL_RESOURCE_ATTRIBUTES=process.pid=1,process.executable.path=/x,process.runtime.name=y", said("", "process.runtime.name", "y")},
	} {
		if got := FromEnviron([]byte(c.environ)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Of too many attributes those are kept that say which service and deployment it is.
func TestChoose(t *testing.T) {
	list := "OTEL_RESOURCE_ATTRIBUTES="
	for i := range 2 * MaxAttributes {
		list += fmt.Sprintf("attribute.%02d=x,", i)
	}
	list += "telemetry.sdk.name=x,process.runtime.name=x,service.version=1,k8s.namespace.name=shop,deployment.environment.name=prod"
	got := FromEnviron([]byte(list))
	if len(got.Attributes) != MaxAttributes {
		t.Fatalf("%d attributes, want %d: %v", len(got.Attributes), MaxAttributes, got)
	}
	var keys []string
	for _, a := range got.Attributes {
		keys = append(keys, a.Key)
	}
	for _, want := range []string{"service.version", "k8s.namespace.name", "deployment.environment.name", "attribute.00"} {
		if !slices.Contains(keys, want) {
			t.Errorf("%s is not among %v", want, keys)
		}
	}
	if slices.Contains(keys, "telemetry.sdk.name") || !slices.IsSorted(keys) {
		t.Errorf("%v", keys)
	}
	value := strings.Repeat("v", maxValue)
	if got := FromEnviron([]byte("OTEL_RESOURCE_ATTRIBUTES=a=" + value + ",b=" + value + ",c=" + value + ",d=" + value + ",e=" + value + ",f=" + value + ",g=" + value + ",h=" + value)); got.Bytes() > maxBytes {
		t.Errorf("%d bytes are kept of one process", got.Bytes())
	}
	a, b := said("", "x", "1", "y", "1"), said("b", "y", "2", "z", "2")
	if got, want := a.Over(b), said("b", "x", "1", "y", "1", "z", "2"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v over %v: %v, want %v", a, b, got, want)
	}
}

// payload makes a ProcessContext as those who publish one do, in protobuf's own words.
func payload(t testing.TB, attributes ...*commonpb.KeyValue) []byte {
	resource, err := proto.Marshal(&resourcepb.Resource{Attributes: attributes, DroppedAttributesCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	extra, err := proto.Marshal(text("threadlocal.schema_version", "tlsdesc_v1_dev"))
	if err != nil {
		t.Fatal(err)
	}
	out := protowire.AppendBytes(protowire.AppendTag(nil, contextResource, protowire.BytesType), resource)
	return protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), extra)
}

func attribute(key string, value *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: value}
}

func text(key, value string) *commonpb.KeyValue {
	return attribute(key, &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}})
}

func TestFromContext(t *testing.T) {
	list := &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{text("", "x").Value}}}}
	got, err := FromContext(payload(t,
		text("service.name", "checkout"), text("service.version", "1.2"), text("process.pid", "7"), text("empty", ""), text("long", strings.Repeat("x", maxValue+1)),
		attribute("number", &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: -5}}),
		attribute("truth", &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: false}}),
		attribute("fraction", &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}}),
		attribute("list", list), attribute("bytes", &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte("x")}}),
		attribute("none", nil), text(strings.Repeat("k", maxKey+1), "x"), text("\x01", "x"),
	))
	want := said("checkout", "fraction", "0.5", "number", "-5", "service.version", "1.2", "truth", "false")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := FromContext(nil); err != nil || !got.Empty() {
		t.Errorf("an empty one: %v, %v", got, err)
	}
	if _, err := FromContext([]byte{0x0a, 0xff}); err == nil {
		t.Error("a length beyond the end passes")
	}
}

func TestFindContexts(t *testing.T) {
	for text, want := range map[string][]uint64{
		"7f3c1a2b4000-7f3c1a2b5000 rw-p 00000000 00:01 12345                      /memfd:OTEL_CTX (deleted)\n":  {0x7f3c1a2b4000},
		"7f3c1a2b4000-7f3c1a2b5000 rw-p 00000000 00:00 0                          [anon_shmem:OTEL_CTX]\n":      {0x7f3c1a2b4000},
		"55d0dead0000-55d0dead1000 r--p 00000000 00:00 0                          [anon:OTEL_CTX]":              {0x55d0dead0000},
		"1000-2000 rw-p 0 00:00 0 /bin/x\n2000-3000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n3000-4000 rw-p 0 00:00 0\n": {0x2000},
		"1000-2000 ---p 0 00:00 0 [anon:OTEL_CTX]\n":                                                            nil,
		"1000-2000 rw-p 0 00:00 0 [anon:OTEL_CTX2]\n":                                                           nil,
		"1000-2000 rw-p 0 00:00 0 /tmp/OTEL_CTX\n":                                                              nil,
		"1000-1010 rw-p 0 00:00 0 [anon:OTEL_CTX]\n":                                                            nil,
		"2000-1000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n":                                                            nil,
		"0-1000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n":                                                               nil,
		"1000-ffffffffffffffff rw-p 0 00:00 0 [anon:OTEL_CTX]\n":                                                nil,
		"[anon:OTEL_CTX]\n": nil,
		"1000-2000 r-xp 0 00:00 0 /" + strings.Repeat("x", 2*maxMapsLine) + "OTEL_CTX\n4000-5000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n": {0x4000},
		strings.Repeat("1000-2000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n", 9):                                                            {0x1000, 0x1000, 0x1000, 0x1000},
	} {
		at, lines, err := FindContexts(strings.NewReader(text))
		if err != nil || !slices.Equal(at, want) || lines != strings.Count(text, "\n") {
			t.Errorf("%.200q: %x, %d lines, %v, want %x", text, at, lines, err, want)
		}
	}
}

const (
	headerAt  = 0x1000
	payloadAt = 0x2000
)

// memory of a process that holds a context; each read calls before.
type memory struct {
	header, payload []byte
	before          func()
	payloadReads    int
}

func publish(payload []byte, published uint64) *memory {
	h := append([]byte("OTEL_CTX"), make([]byte, headerSize-8)...)
	binary.NativeEndian.PutUint32(h[8:], contextVersion)
	binary.NativeEndian.PutUint32(h[12:], uint32(len(payload)))
	binary.NativeEndian.PutUint64(h[16:], published)
	binary.NativeEndian.PutUint64(h[24:], payloadAt)
	return &memory{header: h, payload: payload, before: func() {}}
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	m.before()
	from := m.header
	if at >= payloadAt {
		m.payloadReads++
		from, at = m.payload, at-payloadAt
	} else {
		at -= headerAt
	}
	return bytes.NewReader(from).ReadAt(b, at)
}

func TestReadContext(t *testing.T) {
	content := payload(t, text("service.name", "checkout"), text("a", "b"))
	want := said("checkout", "a", "b")
	m := publish(content, 7)
	if got, published, err := ReadContext(m, headerAt, 0); err != nil || published != 7 || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, published %d, %v", got, published, err)
	}
	if got, published, err := ReadContext(m, headerAt, 7); err != nil || published != 7 || !got.Empty() || m.payloadReads != 1 {
		t.Errorf("known already: %v, published %d, %v; the payload was read %d times", got, published, err, m.payloadReads)
	}

	// Written while it is read: the first payload is torn.
	m = publish(content, 7)
	m.before = func() {
		switch m.payloadReads {
		case 0:
			m.payload = bytes.Repeat([]byte{0xff}, len(content))
		case 1:
			m.payload = content
			binary.NativeEndian.PutUint64(m.header[16:], 8)
		}
	}
	if got, published, err := ReadContext(m, headerAt, 0); err != nil || published != 8 || !reflect.DeepEqual(got, want) {
		t.Errorf("after a change: %v, published %d, %v", got, published, err)
	}
	// Without an end.
	m = publish(content, 7)
	m.before = func() { binary.NativeEndian.PutUint64(m.header[16:], binary.NativeEndian.Uint64(m.header[16:])+1) }
	if _, _, err := ReadContext(m, headerAt, 0); !errors.Is(err, ErrChanging) || m.payloadReads != maxReads {
		t.Errorf("it changes all the time: %v, %d reads", err, m.payloadReads)
	}
	if _, _, err := ReadContext(publish(content, 0), headerAt, 0); !errors.Is(err, ErrChanging) {
		t.Errorf("being written: %v", err)
	}

	for name, change := range map[string]func(m *memory){
		"signature":                 func(m *memory) { m.header[0] = 'X' },
		"version":                   func(m *memory) { m.header[8] = 1 },
		"no payload":                func(m *memory) { binary.NativeEndian.PutUint32(m.header[12:], 0) },
		"a payload too large":       func(m *memory) { binary.NativeEndian.PutUint32(m.header[12:], maxPayload+1) },
		"longer than what is there": func(m *memory) { binary.NativeEndian.PutUint32(m.header[12:], uint32(len(content)+1)) },
		"at an address that is none": func(m *memory) {
			binary.NativeEndian.PutUint64(m.header[24:], ^uint64(0))
		},
		"no protobuf": func(m *memory) { m.payload = bytes.Repeat([]byte{0xff}, len(content)) },
		"unmapped":    func(m *memory) { m.header = m.header[:16] },
	} {
		m := publish(content, 7)
		change(m)
		if got, _, err := ReadContext(m, headerAt, 0); !errors.Is(err, ErrNoContext) || !got.Empty() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// check fails where what is kept is not within the bounds.
func check(t *testing.T, s Said) {
	size := 0
	byKey := func(a, b profile.Attribute) int { return cmp.Compare(a.Key, b.Key) }
	for i, a := range s.Attributes {
		if !usable(a.Key, a.Value) || a.Key == serviceName || i > 0 && byKey(s.Attributes[i-1], a) >= 0 {
			t.Fatalf("%q", s)
		}
		size += len(a.Key) + len(a.Value)
	}
	if len(s.Attributes) > MaxAttributes || size > maxBytes || len(s.Service) > maxValue || !utf8.ValidString(s.Service) {
		t.Fatalf("%q", s)
	}
}

// What an environment says is within bounds, and is the same whatever other variables are in it.
func FuzzFromEnviron(f *testing.F) {
	f.Add([]byte("OTEL_SERVICE_NAME=a\x00B=c"), []byte("SECRET=x"))
	f.Add([]byte("OTEL_RESOURCE_ATTRIBUTES=a=b,c=%20,service.name=d\x00"), []byte("OTEL_EXPORTER_OTLP_HEADERS=k=x"))
	f.Fuzz(func(t *testing.T, environ, other []byte) {
		s := FromEnviron(environ)
		check(t, s)
		name, _, _ := bytes.Cut(other, []byte{'='})
		if bytes.IndexByte(other, 0) >= 0 || string(name) == variableService || string(name) == variableAttributes {
			return
		}
		if with := FromEnviron(slices.Concat(other, []byte{0}, environ)); !reflect.DeepEqual(with, s) {
			t.Fatalf("with %q: %q, without: %q", other, with, s)
		}
	})
}

// What a process publishes is within bounds, whatever it writes.
func FuzzReadContext(f *testing.F) {
	f.Add(publish(nil, 7).header, payload(f, text("service.name", "a"), text("b", "c")), []byte("1000-2000 rw-p 0 00:00 0 [anon:OTEL_CTX]\n"))
	f.Fuzz(func(t *testing.T, header, payload, maps []byte) {
		s, err := FromContext(payload)
		check(t, s)
		if err != nil && !s.Empty() {
			t.Fatal(s, err)
		}
		s, published, err := ReadContext(&memory{header: header, payload: payload, before: func() {}}, headerAt, 0)
		check(t, s)
		if (err == nil) != (published != 0) {
			t.Fatal(published, err)
		}
		if at, _, _ := FindContexts(bytes.NewReader(maps)); len(at) > maxContexts {
			t.Fatal(at)
		}
	})
}
