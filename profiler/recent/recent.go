// Package recent has a cache of what was used lately, bounded by what its entries take.
package recent

import "maps"

// Cache keeps what was used lately, in two generations: when the young one is
// full it becomes the old one, and what nobody asked for meanwhile is dropped
// with the one before. It holds at most twice its limit, and costs a map look-up. Not safe for concurrent use;
// see New.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	// size is what an entry takes of the limit. The processes that are sampled choose how deep stacks are, and how long names.
	size  func(K, V) int
	used  int // of the young generation's limit
	limit int
}

// New makes a cache whose generations take limit each, by what size says of an entry; nil: an entry takes 1.
func New[K comparable, V any](limit int, size func(K, V) int) Cache[K, V] {
	if size == nil {
		size = func(K, V) int { return 1 }
	}
	return Cache[K, V]{young: make(map[K]V), size: size, limit: limit}
}

// Get gives what was put last for a key, as long as it is kept.
func (c *Cache[K, V]) Get(k K) (V, bool) {
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	if ok {
		c.Put(k, v)
	}
	return v, ok
}

// Put keeps a value in place of what the key had.
func (c *Cache[K, V]) Put(k K, v V) {
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

// Drop forgets the keys that match.
func (c *Cache[K, V]) Drop(match func(K) bool) {
	for k, v := range c.young {
		if match(k) {
			c.used -= c.size(k, v)
			delete(c.young, k)
		}
	}
	maps.DeleteFunc(c.old, func(k K, _ V) bool { return match(k) })
}

// Len is the number of entries, counting twice those that both generations have.
func (c *Cache[K, V]) Len() int { return len(c.young) + len(c.old) }
