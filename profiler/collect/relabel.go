package collect

import (
	"fmt"

	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/recent"
)

// relabeler remembers what became of labels: each is looked at once, and equal ones are one pointer afterwards as well.
type relabeler struct {
	apply   func(*profile.Labels) *profile.Labels
	became  recent.Cache[*profile.Labels, *profile.Labels] // nil: dropped
	changed recent.Cache[string, *profile.Labels]
}

// maxRelabeled bounds, in each of two generations, what is remembered.
const maxRelabeled = 16384

func newRelabeler(apply func(*profile.Labels) *profile.Labels) *relabeler {
	if apply == nil {
		return nil
	}
	return &relabeler{
		apply:   apply,
		became:  recent.New[*profile.Labels, *profile.Labels](maxRelabeled, nil),
		changed: recent.New[string, *profile.Labels](maxRelabeled, nil),
	}
}

// labels gives those that a sample is to have; nil where it is dropped.
func (r *relabeler) labels(l *profile.Labels) *profile.Labels {
	if r == nil {
		return l
	}
	if known, ok := r.became.Get(l); ok {
		return known
	}
	out := r.apply(l)
	if out != nil && out != l {
		key := fmt.Sprintf("%#v", *out)
		if known, ok := r.changed.Get(key); ok {
			out = known
		} else {
			r.changed.Put(key, out)
		}
	}
	r.became.Put(l, out)
	return out
}
