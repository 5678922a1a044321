package collect

import (
	"math/rand/v2"
	"testing"
)

// What was used among the last limit different keys is there; no more than twice the limit is held; and a
// value is always the one that was put last.
func TestCache(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{1, 2, 7, 64} {
		c := newCache(limit, func(int, int) int { return 1 })
		last := make(map[int]int)
		var recent []int // keys, the one used last at the end
		hits, misses := 0, 0
		for step := range 20000 {
			key := r.IntN(3*limit + 1)
			got, ok := c.get(key)
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
				c.put(key, step)
				last[key] = step
			}
			for i, k := range recent {
				if k == key {
					recent = append(recent[:i], recent[i+1:]...)
					break
				}
			}
			recent = append(recent, key)
			if c.len() > 2*limit {
				t.Fatalf("limit %d: %d are held", limit, c.len())
			}
		}
		if hits == 0 || misses == 0 {
			t.Errorf("limit %d: %d hits, %d misses", limit, hits, misses)
		}
	}
}

func TestCacheEmpty(t *testing.T) {
	c := newCache(4, func(string, *int) int { return 1 })
	if v, ok := c.get("x"); ok || v != nil || c.len() != 0 {
		t.Errorf("%v %t", v, ok)
	}
	c.put("x", nil)
	if v, ok := c.get("x"); !ok || v != nil {
		t.Errorf("a nil that was put in: %v %t", v, ok)
	}
}

// Large entries take the place of many; one that is replaced takes its own.
func TestCacheSizes(t *testing.T) {
	c := newCache(100, func(_, size int) int { return size })
	for key := range 1000 {
		c.put(key, 1+key%60)
		c.put(key, 1+key%50)
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
	c = newCache(100, func(_, size int) int { return size })
	c.put(3, 90)
	c.drop(func(key int) bool { return key == 3 })
	c.put(1, 60)
	for range 10 {
		c.put(1, 30)
		c.put(2, 30)
	}
	if c.len() != 2 || c.old != nil {
		t.Errorf("%v, %v", c.young, c.old)
	}
}
