package publish

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
)

// Whatever is taken and given back in whatever order: nothing is given out twice, nor while a walk may look at it still, nor across
// two shards, and in the end everything is there again, in one stretch for each shard.
func TestSpace(t *testing.T) {
	for seed := range uint64(20) {
		var (
			r       = rand.New(rand.NewPCG(seed, 0))
			s       space
			now     = time.Unix(0, 0)
			given   []stretch
			resting []limbo
			model   = make(map[stretch]bool) // of given and resting
			tries   int
		)
		const shards = 3
		for n := range shards {
			s.addShard(n)
		}
		empty := slices.Clone(s.free)
		overlaps := func(a stretch) bool {
			for b := range model {
				if a.at < b.at+b.words && b.at < a.at+a.words {
					return true
				}
			}
			return false
		}
		for range 4000 {
			now = now.Add(time.Duration(r.IntN(5)) * time.Millisecond)
			for len(resting) > 0 && now.Sub(resting[0].since) > grace {
				delete(model, resting[0].stretch)
				resting = resting[1:]
			}
			if r.IntN(2) == 0 && len(given) > 0 {
				i := r.IntN(len(given))
				s.give(given[i].at, int(given[i].words), now)
				resting = append(resting, limbo{given[i], now})
				given = slices.Delete(given, i, i+1)
				continue
			}
			words := 1 + r.IntN(1<<(1+r.IntN(18)))
			at, ok := s.take(words, now)
			if !ok {
				tries++
				continue
			}
			got := stretch{at, uint32(words)}
			switch {
			case at == 0:
				t.Fatal("gave position 0, which says that there is no table")
			case !sameShard(at, at+uint32(words)-1) || at+uint32(words) > shards*uint32(bpf.ShardWords):
				t.Fatalf("gave %d words at %#x, which are in two shards or beyond the last", words, at)
			case at%align != 0:
				t.Fatalf("gave words at %#x, which no code range may begin at", at)
			case overlaps(got):
				t.Fatalf("gave %d words at %#x, some of which are in use or were a moment ago", words, at)
			}
			model[got] = true
			given = append(given, got)
		}
		if tries == 0 {
			t.Error("the space was never full: the test does not try it")
		}
		for _, g := range given {
			s.give(g.at, int(g.words), now)
		}
		if s.used != 0 {
			t.Errorf("%d words are in use when all were given back", s.used)
		}
		if s.settle(now.Add(grace)); slices.Equal(s.free, empty) {
			t.Error("what was given back just now can be had at once")
		}
		if s.settle(now.Add(grace + 1)); !slices.Equal(s.free, empty) {
			t.Errorf("free in the end: %v, want %v", s.free, empty)
		}
	}
}
