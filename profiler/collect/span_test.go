package collect

import (
	"slices"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/recent"
)

// Labels that are not kept leave nothing by which samples differ.
func TestPackedLabels(t *testing.T) {
	const a, b, empty = "\x01\x02kvv", "\x02\x01idx", "\x01\x00e"
	only := func(keys ...string) func(string) bool {
		return func(key string) bool { return slices.Contains(keys, key) }
	}
	for _, c := range []struct {
		keep     func(string) bool
		in, want string
	}{
		{nil, a + b, a + b},
		{only(), a + b, ""},
		{only("id"), a + b, b},
		{only("k"), a + b + a, a + a},
		{only("e", "id"), empty + a + b, empty + b},
		{only("k"), "", ""},
		{only("k"), a + "\xff\xffcut", a},
	} {
		collector := &Collector{options: Options{KeepLabel: c.keep}, further: recent.New(1<<10, func(k, _ string) int { return len(k) })}
		for range 2 { // the second time it is remembered
			if got := collector.packed([]byte(c.in)); got != c.want {
				t.Errorf("of %q: %q, want %q", c.in, got, c.want)
			}
		}
	}
}
