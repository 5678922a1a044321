package publish

import (
	"cmp"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
)

// space gives out stretches of the arena, first fit, and takes them back. What was given back is given out again only after
// some time: a walk that began before may still look at it.
type space struct {
	free  []stretch // sorted, never adjacent, each within one shard
	limbo []limbo   // the oldest first
	used  int       // words given out, those in limbo not among them
}

// stretch is words [at, at+words).
type stretch struct{ at, words uint32 }

type limbo struct {
	stretch
	since time.Time
}

// grace is a thousand times what the longest walk takes.
const grace = time.Second

// align is what stretches begin at, in words: that of code ranges, a half cache line.
const align = 8

// addShard puts a shard of the arena in.
func (s *space) addShard(number int) {
	at := uint32(number * bpf.ShardWords)
	// Position 0 says "no table".
	if number == 0 {
		s.insert(stretch{align, uint32(bpf.ShardWords) - align})
		return
	}
	s.insert(stretch{at, uint32(bpf.ShardWords)})
}

// take gives words that lie together; false where no stretch is long enough.
func (s *space) take(words int, now time.Time) (at uint32, ok bool) {
	s.settle(now)
	want := roundUp(words)
	i := slices.IndexFunc(s.free, func(f stretch) bool { return f.words >= want })
	if i < 0 {
		return 0, false
	}
	f := &s.free[i]
	at = f.at
	f.at, f.words = f.at+want, f.words-want
	if f.words == 0 {
		s.free = slices.Delete(s.free, i, i+1)
	}
	s.used += int(want)
	return at, true
}

// give takes back what take gave out.
func (s *space) give(at uint32, words int, now time.Time) {
	want := roundUp(words)
	s.limbo = append(s.limbo, limbo{stretch{at, want}, now})
	s.used -= int(want)
}

// settle ends the grace of what was given back long enough ago.
func (s *space) settle(now time.Time) {
	n := 0
	for n < len(s.limbo) && now.Sub(s.limbo[n].since) > grace {
		s.insert(s.limbo[n].stretch)
		n++
	}
	s.limbo = slices.Delete(s.limbo, 0, n)
}

// resting is how many words were given back and cannot be had yet.
func (s *space) resting() (words int) {
	for _, l := range s.limbo {
		words += int(l.words)
	}
	return words
}

// insert joins a stretch with its neighbours in the same shard.
func (s *space) insert(f stretch) {
	i, _ := slices.BinarySearchFunc(s.free, f.at, func(o stretch, at uint32) int { return cmp.Compare(o.at, at) })
	if i < len(s.free) && f.at+f.words == s.free[i].at && sameShard(f.at, s.free[i].at) {
		f.words += s.free[i].words
		s.free = slices.Delete(s.free, i, i+1)
	}
	if i > 0 && s.free[i-1].at+s.free[i-1].words == f.at && sameShard(f.at, s.free[i-1].at) {
		s.free[i-1].words += f.words
		return
	}
	s.free = slices.Insert(s.free, i, f)
}

func sameShard(a, b uint32) bool { return a/uint32(bpf.ShardWords) == b/uint32(bpf.ShardWords) }

func roundUp(words int) uint32 { return uint32(words+align-1) &^ (align - 1) }
