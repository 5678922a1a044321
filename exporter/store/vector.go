package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"sync"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
)

// words are the strings that a query comes across, each once: a comparison of two is one of numbers. Safe for concurrent use.
//
// Two are taken for the same by a hash of 64 bits under a seed that each query draws anew, so that nobody can choose names that collide. Of a million strings, more
// than a query comes across, two do by chance in one of 40 million queries. To compare the texts too would be two misses of the cache for each: a twentieth of
// the time of a query.
type words struct {
	mu    sync.RWMutex
	seed  maphash.Seed
	slots []wordSlot // a power of two, at most half of them taken
	texts []string   // by ID
}

// wordSlot is where a text is found, beside its hash. An ID of 0 is a free slot: "" needs none.
type wordSlot struct {
	hash uint64
	id   uint32
}

func newWords() *words {
	return &words{seed: maphash.MakeSeed(), slots: make([]wordSlot, 1<<10), texts: []string{""}}
}

func (w *words) hash(text []byte) uint64 { return maphash.Bytes(w.seed, text) }

// slot is that of a hash, or the one that it is to have.
func (w *words) slot(hash uint64) *wordSlot {
	for i := hash; ; i++ {
		if slot := &w.slots[i&uint64(len(w.slots)-1)]; slot.hash == hash || slot.id == 0 {
			return slot
		}
	}
}

// add gives a new text an ID.
func (w *words) add(text string, hash uint64) uint32 {
	if 2*len(w.texts) > len(w.slots) {
		old := w.slots
		w.slots = make([]wordSlot, 4*len(old)) // twice as many would have each text moved once more
		for _, slot := range old {
			if slot.id != 0 {
				*w.slot(slot.hash) = slot
			}
		}
	}
	id := uint32(len(w.texts))
	w.texts = append(w.texts, text)
	*w.slot(hash) = wordSlot{hash, id}
	return id
}

// id of a text; that of "" is 0.
func (w *words) id(text []byte) uint32 {
	if len(text) == 0 {
		return 0
	}
	hash := w.hash(text)
	w.mu.RLock()
	id := w.slot(hash).id
	w.mu.RUnlock()
	if id != 0 {
		return id
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.slot(hash).id; id != 0 {
		return id
	}
	return w.add(string(text), hash)
}

// idsOf gives the IDs of texts that stand one after the other. Each step goes through all of them, as then the CPU waits for several misses of the cache at
// once: one text after the other takes twice the time.
func (w *words) idsOf(bytes []byte, offsets []uint32) []uint32 {
	ids := make([]uint32, max(len(offsets), 1)-1)
	hashes := make([]uint64, len(ids))
	for i := range hashes {
		hashes[i] = w.hash(bytes[offsets[i]:offsets[i+1]])
	}
	var fresh []uint32
	size := 0
	w.mu.RLock()
	for i, hash := range hashes {
		if ids[i] = w.slot(hash).id; ids[i] == 0 && offsets[i+1] > offsets[i] {
			fresh = append(fresh, uint32(i))
			size += int(offsets[i+1] - offsets[i])
		}
	}
	w.mu.RUnlock()
	if len(fresh) == 0 {
		return ids
	}
	var joined strings.Builder // one allocation for all
	joined.Grow(size)
	for _, i := range fresh {
		joined.Write(bytes[offsets[i]:offsets[i+1]])
	}
	rest := joined.String()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range fresh {
		n := offsets[i+1] - offsets[i]
		if ids[i] = w.slot(hashes[i]).id; ids[i] == 0 { // nobody else added it meanwhile
			ids[i] = w.add(rest[:n], hashes[i])
		}
		rest = rest[n:]
	}
	return ids
}

// all are the texts by ID, as many as there are by now.
func (w *words) all() []string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.texts
}

func (w *words) text(id uint32) string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.texts[id]
}

// vector reads the values of one column of a row group, in order and without making a Go value of each.
// Values of dictionaries are translated once. Not safe for concurrent use.
type vector struct {
	chunk  *parquet.FileColumnChunk
	words  *words
	pages  *parquet.FilePages
	page   parquet.Page
	values encoding.Values
	at     int // values of the page that were read
	leaves int // values that stand in the page, without those of empty lists
	// What the dictionary's entries are, by the kind of the column.
	dict  parquet.Dictionary
	ids   []uint32
	longs []int64
	ready bool // the dictionary was read
	// absent says that the file has no such column: each value is "".
	absent bool
}

// errShort says that a column has fewer values than its row group has rows.
var errShort = errors.New("a column ends before its row group")

func newVector(chunk parquet.ColumnChunk, w *words) (*vector, error) {
	c, ok := chunk.(*parquet.FileColumnChunk)
	if !ok {
		return nil, fmt.Errorf("a column is a %T", chunk)
	}
	return &vector{chunk: c, words: w, pages: c.PagesFrom(c.File())}, nil
}

func (c *vector) close() {
	if c.absent {
		return
	}
	parquet.Release(c.page)
	c.page = nil
	_ = c.pages.Close() // it closes no file
}

// dictionary translates the column's dictionary; it is false where there is none.
func (c *vector) dictionary() (bool, error) {
	if c.absent {
		c.ids = []uint32{0}
		return true, nil
	}
	if c.ready {
		return c.dict != nil, nil
	}
	var err error
	if c.dict, err = c.pages.ReadDictionary(); err != nil {
		return false, err
	}
	c.ready = true
	if c.dict == nil {
		return false, nil
	}
	page := c.dict.Page()
	values := page.Data()
	switch c.chunk.Type().Kind() {
	case parquet.ByteArray:
		bytes, offsets := values.ByteArray()
		c.ids = c.words.idsOf(bytes, offsets)
	case parquet.Int32:
		c.ids = make([]uint32, len(values.Int32()))
		for i, v := range values.Int32() {
			c.ids[i] = uint32(v)
		}
	case parquet.Int64:
		c.longs = values.Int64()
	default:
		return false, fmt.Errorf("a dictionary of %s", c.chunk.Type().Kind())
	}
	return true, nil
}

// use has strings from now on be words of another list.
func (c *vector) use(w *words) error {
	c.words = w
	if c.dict == nil {
		return nil
	}
	c.ready = false
	_, err := c.dictionary()
	return err
}

// fill reads the next page where the last one has been read.
func (c *vector) fill() error {
	for c.page == nil || c.at == c.leaves {
		page, err := c.pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return errShort
		}
		if err != nil {
			return err
		}
		parquet.Release(c.page)
		c.page, c.at, c.values = page, 0, page.Data()
		c.leaves = int(page.NumValues() - page.NumNulls())
		if page.Dictionary() != nil {
			if _, err := c.dictionary(); err != nil {
				return err
			}
		}
	}
	return nil
}

// next gives up to n values that are there without reading another page: how many, and where in the page.
func (c *vector) next(n int) (count, from int, err error) {
	if err := c.fill(); err != nil {
		return 0, 0, err
	}
	count, from = min(n, c.leaves-c.at), c.at
	c.at += count
	return count, from, nil
}

// each goes through so many values, page by page: to at..at+n-1 of them belong those that stand in the page from a place on.
func (c *vector) each(values int, read func(at, n, from int)) error {
	for at := 0; at < values; {
		n, from, err := c.next(values - at)
		if err != nil {
			return err
		}
		read(at, n, from)
		at += n
	}
	return nil
}

// readIDs fills dst with strings as words, or with 32-bit numbers.
func (c *vector) readIDs(dst []uint32) error {
	if c.absent {
		clear(dst)
		return nil
	}
	return c.each(len(dst), func(at, n, from int) {
		dst := dst[at : at+n]
		switch {
		case c.page.Dictionary() != nil:
			for i, index := range c.values.Int32()[from : from+n] {
				dst[i] = c.ids[index] // out of range: recovered as damage
			}
		case c.values.Kind() == encoding.ByteArray:
			bytes, offsets := c.values.ByteArray()
			for i := range dst {
				dst[i] = c.words.id(bytes[offsets[from+i]:offsets[from+i+1]])
			}
		default:
			for i, v := range c.values.Int32()[from : from+n] {
				dst[i] = uint32(v)
			}
		}
	})
}

// readIndexes fills dst with where strings stand in ids: each has one there, or several where pages are not of the dictionary.
func (c *vector) readIndexes(dst []uint32) error {
	if _, err := c.dictionary(); err != nil {
		return err
	}
	return c.each(len(dst), func(at, n, from int) {
		dst := dst[at : at+n]
		if c.page.Dictionary() != nil {
			for i, index := range c.values.Int32()[from : from+n] {
				dst[i] = uint32(index)
			}
			return
		}
		bytes, offsets := c.values.ByteArray()
		for i := range dst {
			dst[i] = uint32(len(c.ids))
			c.ids = append(c.ids, c.words.id(bytes[offsets[from+i]:offsets[from+i+1]]))
		}
	})
}

// readLongs fills dst with 64-bit numbers.
func (c *vector) readLongs(dst []int64) error {
	return c.each(len(dst), func(at, n, from int) {
		dst := dst[at : at+n]
		if c.page.Dictionary() == nil {
			copy(dst, c.values.Int64()[from:from+n])
			return
		}
		for i, index := range c.values.Int32()[from : from+n] {
			dst[i] = c.longs[index]
		}
	})
}

// readBools fills dst.
func (c *vector) readBools(dst []bool) error {
	return c.each(len(dst), func(at, n, from int) {
		bits := c.values.Boolean()
		for i := range n {
			dst[at+i] = bits[(from+i)/8]>>((from+i)%8)&1 != 0
		}
	})
}

// lengths reads how long the lists of a column are, in order, from the levels of its pages. Its values are read by another column.
type lengths struct {
	vector
	reps, defs []byte // that were not read
}

func newLengths(chunk parquet.ColumnChunk) (*lengths, error) {
	c, err := newVector(chunk, nil)
	if err != nil {
		return nil, err
	}
	return &lengths{vector: *c}, nil
}

// read fills dst, and adds the lengths up.
func (l *lengths) read(dst []int32) (total int, err error) {
	for i := range dst {
		if len(l.defs) == 0 {
			if err := l.turn(); err != nil {
				return 0, err
			}
		}
		end := 1 + bytes.IndexByte(l.reps[1:], 0)
		if end == 0 {
			end = len(l.reps)
		}
		n := int32(end - bytes.Count(l.defs[:end], noValue))
		l.reps, l.defs = l.reps[end:], l.defs[end:]
		dst[i] = n
		total += int(n)
	}
	return total, nil
}

// noValue is the level of an empty list, which has one and no value.
var noValue = []byte{0}

// turn reads the next page. Pages begin with a row.
func (l *lengths) turn() error {
	page, err := l.pages.ReadPage()
	if errors.Is(err, io.EOF) {
		return errShort
	}
	if err != nil {
		return err
	}
	parquet.Release(l.page)
	l.page, l.reps, l.defs = page, page.RepetitionLevels(), page.DefinitionLevels()
	if len(l.reps) != len(l.defs) || len(l.reps) == 0 || l.reps[0] != 0 {
		return errors.New("the levels of a page do not fit")
	}
	return nil
}
