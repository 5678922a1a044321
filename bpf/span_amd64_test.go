package bpf

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// spanProcess is a hostile process with something at its thread pointer.
type spanProcess struct{ hostileProcess }

func newSpanProcess(span Process) *spanProcess {
	h := &spanProcess{}
	h.sp, h.span = hostileStack, span
	h.rules = []UnwindRule{{Kind: uint8(CpuRuleKindRULE_OUTERMOST)}}
	return h
}

func (h *spanProcess) words(at uint64, words ...uint64) *spanProcess {
	for i, w := range words {
		h.put(at+8*uint64(i), w)
	}
	return h
}

func (h *spanProcess) text(at uint64, text string) *spanProcess {
	text += strings.Repeat("\x00", -len(text)&7)
	for i := 0; i < len(text); i += 8 {
		h.put(at+uint64(i), binary.LittleEndian.Uint64([]byte(text[i:])))
	}
	return h
}

// Places in pages that are there, each some way from its end.
const (
	spanG       = hostileThread + 256
	spanM       = hostileThread + 1024
	spanLabels  = hostileThread + 2*hostilePage
	spanTexts   = hostileThread + 4*hostilePage
	spanBuckets = hostileThread + 6*hostilePage
	spanRecord  = hostileThread + 8*hostilePage
	spanDTV     = hostileThread + 10*hostilePage
	spanSlot    = hostileThread + 12*hostilePage
	spanNowhere = hostileThread + hostilePage
	spanKernel  = 0xffff888000000000
)

const (
	spanTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID    = "00f067aa0ba902b7"
)

// goProcess has a goroutine with labels at spanLabels.
func goProcess(flags SpanFlag) *spanProcess {
	h := newSpanProcess(Process{SpanSource: uint8(SpanSourceGo), SpanFlags: uint8(flags), SpanAt: 16, GoM: 48, GoCurg: 184, GoLabels: 352})
	h.words(hostileThread+16, spanG).words(spanG+48, spanM).words(spanM+184, spanG).words(spanG+352, spanLabels)
	return h.text(spanTexts, "trace_id").text(spanTexts+64, spanTrace).text(spanTexts+128, "span_id").text(spanTexts+192, spanID).text(spanTexts+256, "http.route")
}

// labels are those of the texts at spanTexts.
var spanBoth = []uint64{spanTexts + 256, 10, spanTexts, 3, spanTexts + 128, 7, spanTexts + 192, 16, spanTexts, 8, spanTexts + 64, 32}

// sliceProcess has these labels in a slice.
func sliceProcess(count uint64, labels ...uint64) *spanProcess {
	return goProcess(0).words(spanLabels, spanLabels+64, count).words(spanLabels+64, labels...)
}

// contextProcess publishes a record, to which the word at spanSlot or the thread pointer leads.
func contextProcess(span Process) *spanProcess {
	h := newSpanProcess(span)
	trace, _ := hex.DecodeString(spanTrace)
	id, _ := hex.DecodeString(spanID)
	return h.text(spanRecord, string(trace)+string(id)+"\x01\x01").words(hostileThread+64, spanRecord)
}

// further are labels that go with the ids.
var further = map[string]string{
	"slice":                                "http.route=tra;",
	"slice that is empty":                  "",
	"map":                                  "http.route=tra;",
	"no hexadecimal":                       "http.route=tra;",
	"further, too long":                    "http.route=" + strings.Repeat("\x00", 127) + ";",
	"further, of the kernel's":             "",
	"further, more than there is room for": "label xyz=" + strings.Repeat("\x00", 127) + ";",
	"further, empty":                       "http.route=;http=trace_id;",
	"static":                               "",
}

func repeated(n int, words ...uint64) (all []uint64) {
	for range n {
		all = append(all, words...)
	}
	return all
}

type spanOutcome int

const (
	spanTaken spanOutcome = iota
	spanNone
	spanUnreadable
	spanRefused
)

func (c *SpanCounters) outcome(before SpanCounters) (o spanOutcome, n uint64) {
	for i, d := range []uint64{c.Taken - before.Taken, c.None - before.None, c.Unreadable - before.Unreadable, c.Refused - before.Refused} {
		if d > 0 {
			o = spanOutcome(i)
		}
		n += d
	}
	return o, n
}

// Where the ids of spans are, and whatever a process has in their place: a sample finds them or says why not, and ends.
func TestSpans(t *testing.T) {
	program := buildHostile(t)
	statistics, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatalf("BPF statistics (these tests need root): %v", err)
	}
	defer statistics.Close()
	p := load(t, Options{Walks: true})
	if err := p.Arena().Grow(); err != nil {
		t.Fatal(err)
	}
	module := Process{SpanSource: uint8(SpanSourceModule), SpanAt: spanSlot, SpanOffset: 64}
	musl := module
	musl.SpanFlags = uint8(SpanMusl)
	descriptor := Process{SpanSource: uint8(SpanSourceDescriptor), SpanAt: spanSlot}
	static := Process{SpanSource: uint8(SpanSourceStatic), SpanAt: 64}
	bucket := func(h *spanProcess, at uint64, top uint64, labels ...uint64) *spanProcess {
		h.words(at, top)
		for i := 0; i < len(labels)/4; i++ {
			h.words(at+8+16*uint64(i), labels[4*i], labels[4*i+1]).words(at+8+128+16*uint64(i), labels[4*i+2], labels[4*i+3])
		}
		return h
	}
	aMap := func(bits uint64, buckets, old uint64) *spanProcess {
		return goProcess(SpanGoMap).words(spanLabels, spanLabels+64).words(spanLabels+64, 3, bits<<8, buckets, old)
	}
	for _, c := range []struct {
		name    string
		process *spanProcess
		want    spanOutcome
		ids     string // "": both
	}{
		{"slice", sliceProcess(3, spanBoth...), spanTaken, ""},
		{"slice without end", sliceProcess(1<<63, spanBoth...), spanTaken, ""},
		{"slice of others", sliceProcess(1, spanBoth...), spanNone, ""},
		{"slice that is empty", sliceProcess(0), spanNone, ""},
		{"slice of the kernel's", goProcess(0).words(spanLabels, spanKernel, 3), spanUnreadable, ""},
		{"slice that ends with its page", goProcess(0).words(spanLabels, spanNowhere-32, 2), spanUnreadable, ""},
		{"one of two ids", sliceProcess(2, spanBoth...), spanTaken, strings.Repeat("0", 32) + spanID},
		{"capitals", sliceProcess(3, spanBoth...).text(spanTexts+64, strings.ToUpper(spanTrace)), spanTaken, ""},
		{"no hexadecimal", sliceProcess(3, spanBoth...).text(spanTexts+64, spanTrace[:31]+"g"), spanRefused, ""},
		{"no text", sliceProcess(3, spanBoth...).text(spanTexts+64, spanTrace[:15]+"\xb4"+spanTrace[16:]), spanRefused, ""},
		{"too long", sliceProcess(1, spanTexts, 8, spanTexts+64, 1<<40), spanRefused, ""},
		{"text of the kernel's", sliceProcess(1, spanTexts, 8, spanKernel, 32), spanUnreadable, ""},
		{"key of the kernel's", sliceProcess(1, spanKernel, 8, spanTexts+64, 32), spanUnreadable, ""},
		{"zeros", sliceProcess(1, spanTexts, 8, spanTexts+64, 32).text(spanTexts+64, strings.Repeat("0", 32)), spanNone, ""},
		{"further, too long", sliceProcess(2, spanTexts+256, 10, spanLabels+1024, 1<<63, spanLabels, 64, spanTexts, 8), spanNone, ""},
		{"further, of the kernel's", sliceProcess(2, spanTexts+256, 10, spanKernel, 4, spanKernel, 9, spanTexts, 8), spanNone, ""},
		{"further, more than there is room for", sliceProcess(32, repeated(32, spanTexts, 9, spanBuckets, 127)...).text(spanTexts, "label xyz"), spanNone, ""},
		{"further, empty", sliceProcess(3, spanTexts+256, 0, spanTexts, 8, spanTexts+256, 10, 0, 0, spanTexts+256, 4, spanTexts, 8), spanNone, ""},
		{"no goroutine", sliceProcess(3, spanBoth...).words(hostileThread+16, 0), spanNone, ""},
		{"a goroutine that is nowhere", sliceProcess(3, spanBoth...).words(hostileThread+16, spanNowhere), spanUnreadable, ""},
		{"no labels", sliceProcess(3, spanBoth...).words(spanG+352, 0), spanNone, ""},
		{"on a stack of the runtime's", sliceProcess(3, spanBoth...).words(spanG+352, 0).words(spanM+184, spanG+512).words(spanG+512+352, spanLabels), spanTaken, ""},
		{"a thread that is nowhere", sliceProcess(3, spanBoth...).words(spanG+352, 0, 0).words(spanG+48, spanNowhere), spanUnreadable, ""},
		{"map", bucket(aMap(0, spanBuckets, 0), spanBuckets, 0x090807, spanBoth...), spanTaken, ""},
		{"map with elements gone", bucket(aMap(0, spanBuckets, 0), spanBuckets, 0x090801, spanBoth...), spanTaken, ""},
		{"map whose elements are gone", bucket(aMap(0, spanBuckets, 0), spanBuckets, 0x010001, spanBoth...), spanNone, ""},
		{"map with ids in the second bucket", bucket(aMap(1, spanBuckets, 0), spanBuckets+272, 0x090807, spanBoth...), spanTaken, ""},
		{"map with ids in an overflow", bucket(aMap(0, spanBuckets, 0), spanBuckets+1024, 0x090807, spanBoth...).words(spanBuckets+264, spanBuckets+1024), spanTaken, ""},
		{"map that grows", bucket(aMap(1, spanBuckets, spanBuckets+1024), spanBuckets+1024, 0x090807, spanBoth...), spanTaken, ""},
		{"map whose overflow is itself", aMap(0, spanBuckets, 0).words(spanBuckets+264, spanBuckets), spanNone, ""},
		{"map of too many buckets", aMap(255, spanBuckets, 0), spanNone, ""},
		{"map that is nowhere", aMap(0, spanNowhere, 0), spanUnreadable, ""},
		{"map that is none", goProcess(SpanGoMap).words(spanLabels, 0), spanNone, ""},

		{"static", contextProcess(static), spanTaken, ""},
		{"not valid", contextProcess(static).words(spanRecord+24, 0x0100), spanNone, ""},
		{"valid in another way", contextProcess(static).words(spanRecord+24, 0x02), spanNone, ""},
		{"detached", contextProcess(static).words(hostileThread+64, 0), spanNone, ""},
		{"record of the kernel's", contextProcess(static).words(hostileThread+64, spanKernel), spanUnreadable, ""},
		{"record that ends with its page", contextProcess(static).words(hostileThread+64, spanNowhere-24), spanUnreadable, ""},
		{"slot", contextProcess(Process{SpanSource: uint8(SpanSourceSlot), SpanAt: spanSlot}).words(spanSlot, 64), spanTaken, ""},
		{"slot that leads nowhere", contextProcess(Process{SpanSource: uint8(SpanSourceSlot), SpanAt: spanSlot}).words(spanSlot, 1<<62), spanUnreadable, ""},
		{"module", contextProcess(module).words(spanSlot, 2).words(hostileThread+8, spanDTV+16).words(spanDTV, 5, 0, 1, 0, 0, 0, hostileThread), spanTaken, ""},
		{"module that the thread has not", contextProcess(module).words(spanSlot, 2).words(hostileThread+8, spanDTV+16).words(spanDTV, 5, 0, 1, 0, 0, 0, ^uint64(0)), spanNone, ""},
		{"module beyond the list", contextProcess(module).words(spanSlot, 1<<60).words(hostileThread+8, spanDTV+16).words(spanDTV, 5), spanNone, ""},
		{"module of a list without end", contextProcess(module).words(spanSlot, 1<<59).words(hostileThread+8, spanDTV+16).words(spanDTV, ^uint64(0)), spanUnreadable, ""},
		{"list of the kernel's", contextProcess(module).words(spanSlot, 2).words(hostileThread+8, spanKernel), spanUnreadable, ""},
		{"module, musl", contextProcess(musl).words(spanSlot, 2).words(hostileThread+8, spanDTV).words(spanDTV, 5, 0, hostileThread), spanTaken, ""},
		{"descriptor of a distance", contextProcess(descriptor).words(spanSlot, 0, 64), spanTaken, ""},
		{"descriptor of a module", contextProcess(descriptor).words(spanSlot, 0, spanSlot+64, 0, 0, 0, 0, 0, 0, 2, 64).words(hostileThread+8, spanDTV+16).
			words(spanDTV, 5, 0, 1, 0, 0, 0, hostileThread), spanTaken, ""},
		{"descriptor of the kernel's", contextProcess(descriptor).words(spanSlot, 0, spanKernel), spanUnreadable, ""},
		{"no such source", contextProcess(Process{SpanSource: 200}).words(hostileThread, 0), spanNone, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			outcome, ids, labels, each := c.process.sample(t, p, program)
			want := c.ids
			if want == "" && c.want == spanTaken {
				want = spanTrace + spanID
			} else if want == "" {
				want = strings.Repeat("0", 48)
			}
			if outcome != c.want || ids != want {
				t.Errorf("outcome %d with %s; want %d with %s", outcome, ids, c.want, want)
			}
			if want, ok := further[c.name]; ok && labels != want {
				t.Errorf("further labels %q, want %q", labels, want)
			}
			t.Logf("a sample took %v", each)
		})
	}
	t.Run("random", func(t *testing.T) {
		outcomes, slowest := make(map[spanOutcome]int), time.Duration(0)
		for seed := range uint64(40) {
			outcome, _, _, each := randomSpans(rand.New(rand.NewPCG(seed, 1))).sample(t, p, program)
			outcomes[outcome]++
			slowest = max(slowest, each)
		}
		t.Logf("a sample took %v at most; outcomes %v", slowest, outcomes)
	})
}

// sample takes some, and gives what became of the ids, and what the program took on average.
func (h *spanProcess) sample(t *testing.T, p *Programs, program string) (o spanOutcome, ids, labels string, each time.Duration) {
	t.Helper()
	pid, _, ring, sampled, stop := h.startPublished(t, p, program)
	defer stop()
	defer func() {
		if err := p.DeleteProcess(pid); err != nil {
			t.Error(err)
		}
	}()
	before, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	ran, err := p.OnSample().Stats()
	if err != nil {
		t.Fatal(err)
	}
	sampled(10)
	after, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	runs, err := p.OnSample().Stats()
	if err != nil {
		t.Fatal(err)
	}
	ring.LabelledSamples(func(s *Sample, packed []byte) {
		labels = ""
		Labels(packed, func(key, value []byte) { labels += string(key) + "=" + string(value) + ";" })
		got := hex.EncodeToString(s.TraceId[:]) + hex.EncodeToString(s.SpanId[:])
		if s.Generation != 1 || ids != "" && got != ids {
			t.Errorf("generation %d, %s after %s", s.Generation, got, ids)
		}
		ids = got
	})
	o, n := after.Span.outcome(before.Span)
	if n != after.Taken-before.Taken {
		t.Errorf("%d of %d samples are accounted for: %+v", n, after.Taken-before.Taken, after.Span)
	}
	return o, ids, labels, (runs.Runtime - ran.Runtime) / time.Duration(runs.RunCount-ran.RunCount)
}

// randomSpans has any words, most of which lead to others or are small.
func randomSpans(r *rand.Rand) *spanProcess {
	h := newSpanProcess(Process{
		SpanSource: uint8(1 + r.IntN(5)), SpanFlags: uint8(r.IntN(4)), SpanAt: 8 * r.Uint64N(64), SpanOffset: uint32(8 * r.IntN(64)), GoM: 48, GoCurg: 184, GoLabels: 352,
	})
	if k := SpanSource(h.span.SpanSource); k != SpanSourceStatic && k != SpanSourceGo {
		h.span.SpanAt = spanSlot
	}
	for i := range h.stack {
		switch r.IntN(8) {
		case 0:
			h.stack[i] = r.Uint64()
		case 1:
			h.stack[i] = r.Uint64N(64)
		case 2:
			h.stack[i] = binary.LittleEndian.Uint64([]byte("trace_id"))
		default:
			h.stack[i] = hostileStack + r.Uint64N(hostileBytes/hostilePage/2)*2*hostilePage + 8*r.Uint64N(hostilePage/8)
		}
	}
	return h
}
