package process

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/perfevent"
)

// body writes words of 32 bits (uint32) and 64 bits (uint64) and texts, padded to 8 bytes as the kernel does.
func body(parts ...any) []byte {
	var b []byte
	for _, part := range parts {
		switch part := part.(type) {
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, part)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, part)
		case uint64:
			b = binary.NativeEndian.AppendUint64(b, part)
		case string:
			b = append(b, part...)
			b = append(b, make([]byte, 8-len(part)%8)...)
		}
	}
	return b
}

const testTime = uint64(77)

// examples has one record of each kind, as linux/perf_event.h lays them out, and what it says.
var examples = []struct {
	name string
	kind uint32
	misc uint16
	body []byte
	want Event
}{
	{"mmap2", unix.PERF_RECORD_MMAP2, unix.PERF_RECORD_MISC_USER,
		body(uint32(10), uint32(11), uint64(0x1000), uint64(0x3000), uint64(0x5000), uint32(8), uint32(1), uint64(42), uint64(43), uint32(5), uint32(2), "/lib/x.so", testTime),
		Event{Kind: EventMmap, Time: testTime, PID: 10, TID: 11, Name: "/lib/x.so", File: FileKey{8, 1, 42, 43},
			Mapping: Mapping{Start: 0x1000, End: 0x4000, Offset: 0x5000, Since: testTime}}},
	{"comm", unix.PERF_RECORD_COMM, 0, body(uint32(10), uint32(11), "worker", testTime),
		Event{Kind: EventComm, Time: testTime, PID: 10, TID: 11, Name: "worker"}},
	{"exec", unix.PERF_RECORD_COMM, unix.PERF_RECORD_MISC_COMM_EXEC, body(uint32(10), uint32(10), "sevenby", testTime),
		Event{Kind: EventExec, Time: testTime, PID: 10, TID: 10, Name: "sevenby"}},
	{"fork", unix.PERF_RECORD_FORK, 0, body(uint32(20), uint32(10), uint32(21), uint32(11), uint64(70), testTime),
		Event{Kind: EventFork, Time: testTime, PID: 20, ParentPID: 10, TID: 21}},
	{"exit", unix.PERF_RECORD_EXIT, 0, body(uint32(20), uint32(10), uint32(21), uint32(11), uint64(70), testTime),
		Event{Kind: EventExit, Time: testTime, PID: 20, ParentPID: 10, TID: 21}},
	{"lost", unix.PERF_RECORD_LOST, 0, body(uint64(5), uint64(123), testTime), Event{Kind: EventLost, Time: testTime, ID: 123}},
	{"cgroup", unix.PERF_RECORD_CGROUP, 0, body(uint64(9), "/docker/x", testTime), Event{Kind: EventCgroup, Time: testTime, ID: 9, Name: "/docker/x"}},
	{"namespaces", unix.PERF_RECORD_NAMESPACES, 0,
		body(uint32(10), uint32(11), uint64(7), uint64(1), uint64(100), uint64(1), uint64(101), uint64(1), uint64(102), uint64(1), uint64(103),
			uint64(1), uint64(104), uint64(1), uint64(105), uint64(1), uint64(106), testTime),
		Event{Kind: EventNamespaces, Time: testTime, PID: 10, TID: 11, ID: 103}},
	{"ksymbol", unix.PERF_RECORD_KSYMBOL, 0, body(uint64(0xffffffffc0000000), uint32(64), uint16(1), uint16(0), "bpf_prog_x", testTime),
		Event{Kind: EventKsymbol, Time: testTime, Address: 0xffffffffc0000000, Size: 64, Name: "bpf_prog_x"}},
	{"ksymbol gone", unix.PERF_RECORD_KSYMBOL, 0, body(uint64(0xffffffffc0000000), uint32(64), uint16(1), uint16(1), "bpf_prog_x", testTime),
		Event{Kind: EventKsymbol, Time: testTime, Address: 0xffffffffc0000000, Size: 64, Name: "bpf_prog_x", Gone: true}},
}

func TestDecode(t *testing.T) {
	for _, c := range examples {
		got, ok := decode(perfevent.Record{Type: c.kind, Misc: c.misc, Body: c.body}, newInterner())
		if !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v (%t), want %+v", c.name, got, ok, c.want)
		}
		// Cut short: refused, or at least not read beyond.
		for n := range c.body {
			if e, ok := decode(perfevent.Record{Type: c.kind, Misc: c.misc, Body: c.body[:n:n]}, newInterner()); ok && strings.Contains(e.Name, "\x00") {
				t.Errorf("%s cut to %d bytes: name %q", c.name, n, e.Name)
			}
		}
	}
	for name, r := range map[string]perfevent.Record{
		"mapping of the kernel":                {Type: unix.PERF_RECORD_MMAP2, Misc: unix.PERF_RECORD_MISC_KERNEL, Body: examples[0].body},
		"mapping around the end":               {Type: unix.PERF_RECORD_MMAP2, Misc: unix.PERF_RECORD_MISC_USER, Body: body(uint32(1), uint32(1), ^uint64(0), uint64(0x1000), uint64(0), uint32(0), uint32(0), uint64(0), uint64(0), uint64(0), "x", testTime)},
		"mapping of nothing":                   {Type: unix.PERF_RECORD_MMAP2, Misc: unix.PERF_RECORD_MISC_USER, Body: body(uint32(1), uint32(1), uint64(0x1000), uint64(0), uint64(0), uint32(0), uint32(0), uint64(0), uint64(0), uint64(0), "x", testTime)},
		"namespaces without mount's":           {Type: unix.PERF_RECORD_NAMESPACES, Body: body(uint32(1), uint32(1), uint64(3), make8(14), testTime)},
		"mapping outside of our pid namespace": {Type: unix.PERF_RECORD_MMAP2, Misc: unix.PERF_RECORD_MISC_USER, Body: withPID(examples[0].body, 0)},
		"comm outside of it":                   {Type: unix.PERF_RECORD_COMM, Body: withPID(examples[1].body, 0)},
		"fork outside of it":                   {Type: unix.PERF_RECORD_FORK, Body: withPID(examples[3].body, 0)},
		"exit of a reaped process":             {Type: unix.PERF_RECORD_EXIT, Body: withPID(examples[4].body, ^uint32(0))},
		"namespaces outside of it":             {Type: unix.PERF_RECORD_NAMESPACES, Body: withPID(examples[7].body, 0)},
		"another kind":                         {Type: unix.PERF_RECORD_SAMPLE, Body: body(make8(20))},
	} {
		if e, ok := decode(r, newInterner()); ok {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// withPID is the body of a record of another process.
func withPID(body []byte, pid uint32) []byte {
	body = slices.Clone(body)
	binary.NativeEndian.PutUint32(body, pid)
	return body
}

func make8(words int) string {
	return strings.Repeat("\x01\x00\x00\x00\x00\x00\x00\x00", words)[:8*words-1]
}

func FuzzDecode(f *testing.F) {
	for _, c := range examples {
		f.Add(c.kind, c.misc, c.body)
	}
	f.Fuzz(func(t *testing.T, kind uint32, misc uint16, body []byte) {
		// A slice that ends in the middle of an array would hide that it is read beyond.
		body = append(make([]byte, 0, len(body)), body...)
		e, ok := decode(perfevent.Record{Type: kind, Misc: misc, Body: body[:len(body):len(body)]}, newInterner())
		if !ok {
			if e.Kind != 0 && e.Kind != EventMmap {
				t.Fatalf("%+v is refused", e)
			}
			return
		}
		if e.Kind < EventMmap || e.Kind > EventLost || strings.ContainsRune(e.Name, 0) || len(e.Name) > len(body) {
			t.Fatalf("%+v", e)
		}
		if e.Kind == EventMmap && (e.Mapping.End <= e.Mapping.Start || e.Mapping.Since != e.Time) {
			t.Fatalf("%+v", e)
		}
	})
}

// Names are kept once, and not without end.
func TestInterner(t *testing.T) {
	n := newInterner()
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 * maxInterned {
		b := binary.NativeEndian.AppendUint64(nil, r.Uint64N(2*maxInterned))
		if s := n.intern(b); s != string(b) {
			t.Fatalf("%q became %q", b, s)
		}
		if len(n.names) > maxInterned {
			t.Fatalf("%d names are kept", len(n.names))
		}
	}
	n = newInterner()
	long := make([]byte, unix.PathMax)
	for i := range maxInterned {
		binary.NativeEndian.PutUint64(long, uint64(i))
		if n.intern(long); len(n.names)*len(long) > maxInternedBytes {
			t.Fatalf("%d names of %d bytes are kept", len(n.names), len(long))
		}
	}
}
