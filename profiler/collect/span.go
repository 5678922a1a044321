package collect

import (
	"encoding/hex"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/recent"
)

// spanKey is whose sample it was, of which span, and with which further labels, packed.
type spanKey struct {
	labels  *profile.Labels
	traceID [16]byte
	spanID  [8]byte
	further string
}

const (
	// maxSpanBytes bounds the labels of spans that are remembered, for each of two generations: some 13,000.
	maxSpanBytes = 4 << 20
	spanBytes    = 320
	// maxFurtherBytes bounds the further labels that are remembered packed, for each of two generations.
	maxFurtherBytes = 1 << 20
	// maxFurther labels of a goroutine are kept.
	maxFurther = 8
)

func newSpanCache() recent.Cache[spanKey, *profile.Labels] {
	return recent.New(maxSpanBytes, func(k spanKey, _ *profile.Labels) int { return spanBytes + 3*len(k.further) })
}

func newFurtherCache() recent.Cache[string, string] {
	return recent.New(maxFurtherBytes, func(k, v string) int { return 96 + len(k) + len(v) })
}

// packed gives labels as they came in the form in which they are kept, one copy of equal ones, without those that are not to be kept: samples that differ
// by these alone are added up.
func (c *Collector) packed(labels []byte) string {
	if len(labels) == 0 {
		return ""
	}
	text := string(labels)
	if known, ok := c.further.Get(text); ok {
		return known
	}
	kept := text
	if c.options.KeepLabel != nil {
		kept = keptLabels(text, c.options.KeepLabel)
	}
	c.further.Put(text, kept)
	return kept
}

// keptLabels leaves the labels whose keys are to be kept, packed as before.
func keptLabels(packed string, keep func(key string) bool) string {
	var kept []byte
	bpf.Labels([]byte(packed), func(key, value []byte) {
		if keep(string(key)) {
			kept = append(kept, byte(len(key)), byte(len(value)))
			kept = append(append(kept, key...), value...)
		}
	})
	return string(kept)
}

// ofSpan gives labels together with the ids and the further labels that came with a sample, one pointer for equal ones; the labels themselves where none came.
func (c *Collector) ofSpan(labels *profile.Labels, s *bpf.Sample, further string) *profile.Labels {
	key := spanKey{labels, s.TraceId, s.SpanId, further}
	if key.traceID == [16]byte{} && key.spanID == [8]byte{} && further == "" {
		return labels
	}
	if l, ok := c.spans.Get(key); ok {
		return l
	}
	l := new(profile.Labels)
	*l = *labels
	if key.traceID != [16]byte{} {
		l.TraceID = hex.EncodeToString(key.traceID[:])
	}
	if key.spanID != [8]byte{} {
		l.SpanID = hex.EncodeToString(key.spanID[:])
	}
	bpf.Labels([]byte(further), func(key, value []byte) {
		if len(l.Further) < maxFurther {
			l.Further = append(l.Further, profile.Attribute{Key: string(key), Value: string(value)})
		}
	})
	c.spans.Put(key, l)
	return l
}
