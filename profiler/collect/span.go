package collect

import (
	"encoding/hex"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/recent"
)

// spanKey is whose sample it was, and of which span.
type spanKey struct {
	labels  *profile.Labels
	traceID [16]byte
	spanID  [8]byte
}

// maxSpanBytes bounds the labels of spans that are remembered, for each of two generations: some 13,000.
const maxSpanBytes = 4 << 20

func newSpanCache() recent.Cache[spanKey, *profile.Labels] {
	return recent.New(maxSpanBytes, func(spanKey, *profile.Labels) int { return 320 })
}

// ofSpan gives labels together with the ids that came with a sample, one pointer for equal ones; the labels themselves where none came.
func (c *Collector) ofSpan(labels *profile.Labels, s *bpf.Sample) *profile.Labels {
	key := spanKey{labels, s.TraceId, s.SpanId}
	if key.traceID == [16]byte{} && key.spanID == [8]byte{} {
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
	c.spans.Put(key, l)
	return l
}
