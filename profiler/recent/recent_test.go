package recent

import (
	"math/rand/v2"
	"testing"
)

// What was used among the last limit different keys is there; no more than twice the limit is held; and a
// value is always the one that was put last.
func TestCache(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{1, 2, 7, 64} {
		c := New(limit, func(int, int) int { return 1 })
		last := make(map[int]int)
		var recent []int // keys, the one used last at the end
		hits, misses := 0, 0
		for step := range 20000 {
			key := r.IntN(3*limit + 1)
			got, ok := c.Get(key)
			if want, put := last[key]; ok && (!put || got != want) {
				t.Fatalf("limit %d: key %d gives %d, want %d", limit, key, got, want)
			}
			position := 0 // how many different keys were used since this one
			for i := len(recent) - 1; i >= 0 && recent[i] != key; i-- {
				position++
			}
			if !ok && position < min(limit, len(recent)) {
				t.Fatalf("limit %d, step %d: key %d is gone, though only %d others were used since", limit, step, key, position)
			}
			if ok {
				hits++
			} else {
				misses++
			}
			if !ok || r.IntN(4) == 0 {
				c.Put(key, step)
				last[key] = step
			}
			for i, k := range recent {
				if k == key {
					recent = append(recent[:i], recent[i+1:]...)
					break
				}
			}
			recent = append(recent, key)
			if c.Len() > 2*limit {
				t.Fatalf("limit %d: %d are held", limit, c.Len())
			}
		}
		if hits == 0 || misses == 0 {
			t.Errorf("limit %d: %d hits, %d misses", limit, hits, misses)
		}
	}
}

func TestCacheEmpty(t *testing.T) {
	c := New(4, func(string, *int) int { return 1 })
	if v, ok := c.Get("x"); ok || v != nil || c.Len() != 0 {
		t.Errorf("%v %t", v, ok)
	}
	c.Put("x", nil)
	if v, ok := c.Get("x"); !ok || v != nil {
		t.Errorf("a nil that was put in: %v %t", v, ok)
	}
}

// Large entries take the place of many; one that is replaced takes its own.
func TestCacheSizes(t *testing.T) {
	c := New(100, func(_, size int) int { return size })
	for key := range 1000 {
		c.Put(key, 1+key%60)
		c.Put(key, 1+key%50)
		held := 0
		for _, generation := range []map[int]int{c.young, c.old} {
			for _, size := range generation {
				held += size
			}
		}
		if held > 200 {
			t.Fatalf("%d are held", held)
		}
	}
	c = New(100, func(_, size int) int { return size })
	c.Put(3, 90)
	c.Drop(func(key int) bool { return key == 3 })
	c.Put(1, 60)
	for range 10 {
		c.Put(1, 30)
		c.Put(2, 30)
	}
	if c.Len() != 2 || c.old != nil {
		t.Errorf("%v, %v", c.young, c.old)
	}
}
