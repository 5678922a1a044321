package profile

import (
	"testing"
	"time"
)

// The times of samples lie in their profile, and no profile ends before it begins.
func TestTimesLieInTheProfile(t *testing.T) {
	start := time.Now()
	for length, want := range map[time.Duration][]time.Duration{
		time.Second:  {0, 5, time.Second - 1},
		0:            {0, 0, 0},
		-time.Second: {0, 0, 0},
	} {
		b := NewBuilder(TypeCPU, 1, start)
		for _, at := range []time.Duration{-1, 5, 2 * time.Second} {
			b.AddAt(nil, nil, nil, 1, at)
		}
		p := b.Build(start.Add(length), Account{})
		if p.Duration != max(0, length) {
			t.Errorf("%s long: %s", length, p.Duration)
		}
		for i, at := range p.Samples[0].Times {
			if at != want[i] {
				t.Errorf("%s long: sample %d at %s, not %s", length, i, at, want[i])
			}
		}
	}
}
