package store

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"sync"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Stacks are samples as trees and tables are made of them.
type Stacks struct {
	*flame.Stacks
	// Profile is the one that the samples are of, without them.
	Profile *profile.Profile
	// Completeness is that of all the profile's samples.
	Completeness profile.Completeness
}

// Stacks adds up the samples that a query means, with Focus, Ignore, Hide and By done. It says the same as Read and
// flame.Select do, in a quarter of the time and of the memory: of a frame there are only the function and the file that it is in. The kind of a function of
// several kinds is that of all stacks that the filter leaves, not of those alone that are focused on.
func (r *Reader) Stacks(ctx context.Context, q query.Query) (*Stacks, *Answer, error) {
	s := r.newScan(ctx, q)
	defer s.cancel(nil)
	s.stacks, s.coarse = true, true
	var kept [labelCount]bool
	by := slices.Index(query.Labels, q.By)
	if by >= 0 {
		kept[by], s.labels[by] = true, true
	}
	total, err := s.sums(kept)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	out := &Stacks{Profile: s.header(total)}
	c, err := s.compact(total, by, maxCompactStacks, maxFrames)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	out.Stacks, out.Completeness = c.stacks, c.complete
	out.Type = out.Profile.Type
	out.Stacks = out.Select(q.Focus, q.Ignore, q.Hide)
	return out, s.answer, nil
}

// group puts samples into groups by a label.
func (c *compactor) group(v *sums, by int) {
	groups := make([]flame.Frame, len(v.keys))
	for i, key := range v.keys {
		name := c.lookUp.scan.labelText(by, key[by])
		if name == "" {
			name = "[no " + query.Labels[by] + "]"
		}
		groups[i] = c.label(name, flame.KindLabel)
	}
	c.stacks.Grouped = true
	for i := range c.stacks.Samples {
		c.stacks.Samples[i].Group = groups[v.totals[i].labels]
	}
}

// compact finds the stacks that rows refer to: of most of them, those with most samples, the ones that it reads before the room for frames is used up. The samples
// are in the order of the rows, and in groups by a label if by is not negative.
func (s *scan) compact(v *sums, by, most int, frames int64) (*compactor, error) {
	l := s.newLookUp(v, most, frames, []int{frameFunction, frameKind, frameModule, frameMissing})
	c := &compactor{lookUp: l, stacks: new(flame.Stacks), found: make([][]flame.Frame, len(l.ids)), truncated: s.words.id([]byte(kindTruncated)),
		sites: make([]site, 1), numbers: make(map[site]uint32), latest: make(map[uint32]uint32), bases: make(map[uint32]uint32)}
	missing, rare := []flame.Frame{c.label(pprof.Truncated(reasonMissing), flame.KindTruncated)}, []flame.Frame{c.label(pprof.Truncated(reasonRare), flame.KindTruncated)}
	c.rare = rare
	l.take, l.indexed = c.take, true
	if err := l.run(); err != nil {
		return nil, err
	}
	c.completeness()
	c.stacks.Samples = make([]flame.StackSample, len(v.totals))
	for i, t := range v.totals {
		sample := flame.StackSample{Weight: flame.Weight{Samples: t.count, Value: t.value}}
		if t.stack != 0 {
			switch number := l.number(t.stack); {
			case number < 0:
				sample.Frames = rare
			case l.states[number] == stackFound:
				sample.Frames = c.found[number]
			default:
				sample.Frames = missing
			}
		}
		c.complete.Stacks += uint64(t.count)
		c.stacks.Samples[i] = sample
	}
	if by >= 0 {
		c.group(v, by)
	}
	c.name()
	return c, nil
}

// compactor makes flame.Stacks of the frames that are read.
type compactor struct {
	lookUp    *lookUp
	truncated uint32          // a kind
	found     [][]flame.Frame // by the number of the stack
	rare      []flame.Frame   // of those that have no room

	complete profile.Completeness // in the end

	mu        sync.RWMutex
	stacks    *flame.Stacks
	functions functionIndex
	list      []functionKey     // the functions by number, each with the site that has the first kind of those it was seen with
	sites     []site            // by number; 0 is none
	numbers   map[site]uint32   // of sites
	latest    map[uint32]uint32 // site of a base, the others of which follow it
	bases     map[uint32]uint32 // of modules
}

// site is where functions are: the last element of a module's path, a word, and the kind of their frames.
type site struct {
	base uint32
	kind flame.Kind
	next uint32 // of the same base
}

// compactReader is what a worker has of its own.
type compactReader struct {
	met      []functionPair // of the names of the row group, by their index
	sites    [knownSites]knownSite
	late     []lateFrame // of one stack
	latest   latestStack
	slab     []flame.Frame
	complete profile.Completeness
	reasons  map[uint32]uint64 // samples by reason, a word
	noted    []uint32          // reasons of one stack
}

// open begins a row group.
func (r *compactReader) open() {
	r.met, r.late = r.met[:0], r.late[:0]
	clear(r.sites[:])
}

// latestStack is the one that was taken last, and where its frames stand among those of the reader.
type latestStack struct {
	frames  []flame.Frame
	at, end int
}

// knownSite is the site of frames of a row group, by what indexes of their columns are.
type knownSite struct{ module, kind, missing, site uint32 }

const knownSites = 1024 // a power of two

// lateFrame is one that a worker does not know yet: the index of its name, its site, and where it is in the slab.
type lateFrame struct {
	name, site uint32
	at         int
}

// functionIndex finds functions by their name, a word, and site: two of a name at once, as hardly one has more.
type functionIndex struct {
	pairs  []functionPair // by the name
	others map[functionKey]flame.Frame
}

type functionKey struct{ name, site uint32 }

type functionPair [2]struct {
	site  uint32
	frame flame.Frame // not inlined
}

func (p *functionPair) find(site uint32) (flame.Frame, bool) {
	for i := range p {
		if p[i].site == site {
			return p[i].frame, true
		}
	}
	return 0, false
}

// put remembers a function, instead of another one if there are two.
func (p *functionPair) put(site uint32, f flame.Frame) {
	of := &p[1]
	if p[0].site == 0 || p[0].site == site {
		of = &p[0]
	}
	of.site, of.frame = site, f
}

func (x *functionIndex) pair(name uint32) (p functionPair) {
	if int(name) < len(x.pairs) {
		p = x.pairs[name]
	}
	return p
}

func (x *functionIndex) find(key functionKey) (flame.Frame, bool) {
	pair := x.pair(key.name)
	f, ok := pair.find(key.site)
	if !ok && pair[1].site != 0 {
		f, ok = x.others[key]
	}
	return f, ok
}

// add adds a function, the name of which is one of words.
func (x *functionIndex) add(key functionKey, f flame.Frame, words *words) {
	if int(key.name) >= len(x.pairs) {
		more := make([]functionPair, 1<<bits.Len(uint(len(words.all()))))
		copy(more, x.pairs)
		x.pairs = more
	}
	if pair := &x.pairs[key.name]; pair[1].site == 0 {
		pair.put(key.site, f)
		return
	}
	if x.others == nil {
		x.others = make(map[functionKey]flame.Frame)
	}
	x.others[key] = f
}

func (c *compactor) take(r *frameReader, number int32, at, end int, whole bool) {
	w := &r.compactReader
	if !c.lookUp.hasRoom(number, end-at) {
		c.found[number] = c.rare
		return
	}
	w.slab = flame.Room(w.slab, end-at)
	from := len(w.slab)
	if len(w.met) < len(r.columns[frameFunction].ids) {
		c.meet(r)
	}
	kinds, reasons := r.columns[frameKind].ids, r.columns[frameMissing].ids
	callers := r.sameCallers(at, end)
	for i := at; i < end-callers; i++ {
		name, module, kind, missing := r.words[frameFunction][i], r.words[frameModule][i], r.words[frameKind][i], r.words[frameMissing][i]
		known := &w.sites[(module+61*kind+31*missing)%knownSites]
		if known.module != module || known.kind != kind || known.missing != missing || known.site == 0 {
			*known = knownSite{module, kind, missing, c.site(r.columns[frameModule].ids[module], kinds[kind], reasons[missing])}
		}
		f, ok := w.met[name].find(known.site)
		if !ok {
			w.late = append(w.late, lateFrame{name, known.site, len(w.slab)})
		}
		if r.inlined[i] {
			f |= flame.Inlined
		}
		w.slab = append(w.slab, f)
	}
	if len(w.late) > 0 {
		c.resolve(r)
	}
	w.slab = append(w.slab, w.latest.frames[len(w.latest.frames)-callers:]...)
	frames := w.slab[from:len(w.slab):len(w.slab)]
	c.found[number], w.latest = frames, latestStack{frames, at, end}

	w.noted = w.noted[:0]
	count := uint64(c.lookUp.counts[number])
	locations, named := uint64(0), uint64(0)
	for i := at; i < end; i++ {
		if r.inlined[i] {
			continue
		}
		reason := reasons[r.words[frameMissing][i]]
		if kinds[r.words[frameKind][i]] != c.truncated {
			locations++
			if reason == 0 {
				named++
			}
		}
		if reason != 0 && !slices.Contains(w.noted, reason) {
			w.noted = append(w.noted, reason)
		}
	}
	w.complete.Frames += locations * count
	w.complete.Named += named * count
	if whole {
		w.complete.Whole += count
	}
	for _, reason := range w.noted {
		if w.reasons == nil {
			w.reasons = make(map[uint32]uint64)
		}
		w.reasons[reason] += count
	}
}

// sameCallers is how many of a stack's outermost frames are those of the stack that stands before it, where that one was taken too. Writers put stacks beside
// others that have callers in common.
func (r *frameReader) sameCallers(at, end int) (n int) {
	if r.latest.end != at {
		return 0
	}
	names, modules, kinds, reasons := r.words[frameFunction], r.words[frameModule], r.words[frameKind], r.words[frameMissing]
	i, j := end-1, at-1
	for i >= at && j >= r.latest.at && names[i] == names[j] && modules[i] == modules[j] && kinds[i] == kinds[j] && reasons[i] == reasons[j] && r.inlined[i] == r.inlined[j] {
		i, j = i-1, j-1
	}
	return end - 1 - i
}

// meet tells a worker what is known of the names of its row group. All together: as it meets them, each would be a miss of the cache to wait for.
func (c *compactor) meet(r *frameReader) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := r.columns[frameFunction].ids[len(r.met):]
	r.met = slices.Grow(r.met, len(names))
	for _, name := range names {
		r.met = append(r.met, c.functions.pair(name))
	}
}

// resolve puts the frames into the slab that were not known.
func (c *compactor) resolve(r *frameReader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, late := range r.late {
		f := c.frame(functionKey{r.columns[frameFunction].ids[late.name], late.site})
		r.met[late.name].put(late.site, f)
		r.compactReader.slab[late.at] |= f
	}
	r.late = r.late[:0]
}

// frame gives the frame of a function, not inlined. Those of one name and base are one, whatever their kinds.
func (c *compactor) frame(key functionKey) flame.Frame {
	f, ok := c.functions.find(key)
	if ok {
		return f
	}
	in := &c.sites[key.site]
	for other := c.latest[in.base]; other != 0 && !ok; other = c.sites[other].next {
		f, ok = c.functions.find(functionKey{key.name, other})
	}
	if !ok {
		f = flame.Numbered(len(c.list))
		c.list = append(c.list, key)
	}
	c.functions.add(key, f, c.lookUp.scan.words)
	if first := &c.list[f.Number()].site; in.kind < c.sites[*first].kind {
		*first = key.site
	}
	return f
}

// name adds the functions, which were words and numbers until here: all at once, when nobody else wants the lock or the cache.
func (c *compactor) name() {
	texts := c.lookUp.scan.words.all()
	c.stacks.Functions = flame.NewFunctions(len(c.list))
	for _, f := range c.list {
		in := &c.sites[f.site]
		c.stacks.Add(flame.Function{Name: texts[f.name], Module: texts[in.base]}, in.kind)
	}
}

// site gives the number of a site.
func (c *compactor) site(module, kind, missing uint32) uint32 {
	words := c.lookUp.scan.words
	p := site{kind: flame.Kind(words.text(kind))}
	if missing != 0 && kind != c.truncated {
		p.kind = flame.KindUnknown
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.base = c.base(module)
	number, ok := c.numbers[p]
	if !ok {
		number = uint32(len(c.sites))
		c.numbers[p] = number
		p.next, c.latest[p.base] = c.latest[p.base], number
		c.sites = append(c.sites, p)
	}
	return number
}

// base is the last element of a module's path.
func (c *compactor) base(module uint32) uint32 {
	base, ok := c.bases[module]
	if !ok && module != 0 {
		base = c.lookUp.scan.words.id([]byte(path.Base(c.lookUp.scan.words.text(module))))
		c.bases[module] = base
	}
	return base
}

// label gives the frame of a text that is no function of a program.
func (c *compactor) label(text string, kind flame.Kind) flame.Frame {
	words := c.lookUp.scan.words
	p := c.site(0, words.id([]byte(kind)), 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frame(functionKey{words.id([]byte(text)), p})
}

// completeness adds up what workers found, and what there is of stacks that were not.
func (c *compactor) completeness() {
	sum := &c.complete
	reasons := make(map[string]uint64)
	for range cap(c.lookUp.workers) {
		r := <-c.lookUp.workers
		sum.Whole += r.complete.Whole
		sum.Frames += r.complete.Frames
		sum.Named += r.complete.Named
		for word, n := range r.reasons {
			reasons[c.lookUp.scan.words.text(word)] += n
		}
	}
	for number, state := range c.lookUp.states {
		if state != stackFound {
			reasons[reasonMissing] += uint64(c.lookUp.counts[number])
		}
	}
	if n := c.lookUp.rare + c.lookUp.roomless.Load(); n > 0 {
		reasons[reasonRare] = uint64(n)
	}
	for reason, n := range reasons {
		sum.Reasons = append(sum.Reasons, profile.Loss{Reason: reason, Count: n})
	}
	slices.SortFunc(sum.Reasons, func(a, b profile.Loss) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
}
