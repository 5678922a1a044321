package collect

import "maps"

// cache keeps what was used lately, in two generations: when the young one is
// full it becomes the old one, and what nobody asked for meanwhile is dropped
// with the one before. It holds at most twice its limit, and costs a map look-up.
type cache[K comparable, V any] struct {
	young, old map[K]V
	// size is what an entry takes of the limit. The processes that are sampled choose how deep stacks are, and how long names.
	size  func(K, V) int
	used  int // of the young generation's limit
	limit int
}

func newCache[K comparable, V any](limit int, size func(K, V) int) cache[K, V] {
	return cache[K, V]{young: make(map[K]V), size: size, limit: limit}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	if ok {
		c.put(k, v)
	}
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	if before, ok := c.young[k]; ok {
		c.used -= c.size(k, before)
	}
	size := c.size(k, v)
	if c.used+size > c.limit {
		c.old, c.young, c.used = c.young, make(map[K]V), 0
	}
	c.young[k] = v
	c.used += size
}

// drop forgets the keys that match.
func (c *cache[K, V]) drop(match func(K) bool) {
	for k, v := range c.young {
		if match(k) {
			c.used -= c.size(k, v)
			delete(c.young, k)
		}
	}
	maps.DeleteFunc(c.old, func(k K, _ V) bool { return match(k) })
}

func (c *cache[K, V]) len() int { return len(c.young) + len(c.old) }
