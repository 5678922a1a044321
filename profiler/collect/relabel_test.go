package collect

import (
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Labels that become equal are one pointer, and each is looked at once.
func TestRelabeler(t *testing.T) {
	calls := 0
	r := newRelabeler(func(l *profile.Labels) *profile.Labels {
		calls++
		switch l.Comm {
		case "drop":
			return nil
		case "stay":
			return l
		}
		changed := *l
		changed.Thread = ""
		return &changed
	})
	a, b := &profile.Labels{Comm: "x", Thread: "a"}, &profile.Labels{Comm: "x", Thread: "b"}
	stays, drops := &profile.Labels{Comm: "stay"}, &profile.Labels{Comm: "drop"}
	for range 3 {
		if r.labels(a) != r.labels(b) || r.labels(a) == a || r.labels(stays) != stays || r.labels(drops) != nil {
			t.Fatal(r.labels(a), r.labels(b), r.labels(stays), r.labels(drops))
		}
	}
	if calls != 4 {
		t.Errorf("%d labels were looked at, not 4", calls)
	}
	if none := (*relabeler)(nil); none.labels(a) != a {
		t.Error("without rules labels are others")
	}
}
