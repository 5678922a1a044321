package flame

import (
	"cmp"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Tree is all stacks of a profile from the outermost frame inwards: a flame graph.
type Tree struct {
	Type profile.Type `json:"type"`
	// Root is no function. Its Total is the whole profile; its Self are samples without any frame.
	Root *Node `json:"root"`
	// Nodes is how many there are, without Root, and with those that were left out.
	Nodes int `json:"nodes"`

	factor float64 // of a DiffTree: what weights before are multiplied by
}

// Heaviest tells which are the n heaviest nodes: those that weigh more than least, and as many as ties of those that weigh as much. A node is no heavier than
// the one above it.
func (t *Tree) Heaviest(n int) (least int64, ties int) {
	switch {
	case n <= 0:
		return math.MaxInt64, 0
	case t.Nodes <= n:
		return math.MinInt64, 0
	}
	var weights []int64 // of those that were not left out
	var collect func(n *Node)
	collect = func(n *Node) {
		for _, c := range n.Children {
			weights = append(weights, t.Weigh(c))
			collect(c)
		}
	}
	collect(t.Root)
	if len(weights) <= n {
		return math.MinInt64, 0
	}
	slices.Sort(weights)
	heaviest := weights[len(weights)-n:]
	least = heaviest[0]
	for ties < n && heaviest[ties] == least {
		ties++
	}
	return least, ties
}

// Weigh is what a node is ordered by: its total value, and in a DiffTree also that before, as far as it can be compared.
func (t *Tree) Weigh(n *Node) int64 {
	if n.TotalBefore == nil {
		return n.Total.Value
	}
	return weigh(n.Total.Value, n.TotalBefore.Value, t.factor)
}

// Node is a function as it was called by the functions above it.
type Node struct {
	*Function      // shared by all nodes of the function
	Kind      Kind `json:"kind"`
	// Inlined says that in all its samples the function had been inlined into its caller.
	Inlined bool `json:"inlined,omitempty"`
	// Self is what was sampled in the function itself, Total also what was sampled in what it called.
	Self  Weight `json:"self"`
	Total Weight `json:"total"`
	// In a DiffTree alone: what the node was before, and whether its total differs by more than chance, as [Comparison] says it of a
	// function's. The tests are corrected for the number of nodes.
	SelfBefore  *Weight `json:"selfBefore,omitempty"`
	TotalBefore *Weight `json:"totalBefore,omitempty"`
	Significant bool    `json:"significant,omitempty"`
	// Children are what it called, the heaviest first.
	Children []*Node `json:"children,omitempty"`
	calls    int
}

// Calls is how many functions it called, with those that were left out of Children.
func (n *Node) Calls() int { return n.calls }

// NewTree puts the stacks of a profile together.
func NewTree(p *profile.Profile) *Tree { return NewStacks(p).Tree(0) }

// Tree puts the stacks together, and leaves out all but as many of the heaviest nodes as the limit, if that is not 0. Where several weigh as much, those are
// kept that are met first on the way through the tree.
//
// The stacks are sorted from the outermost frame on, so that a node is a run of them: nothing has to be kept of the nodes that are left out.
func (s *Stacks) Tree(limit int) *Tree { return s.tree(limit, nil) }

// tree is Tree, and calls visit, if any, for each node, also those that are left out.
func (s *Stacks) tree(limit int, visit func(*weights)) *Tree {
	order := s.sorted()
	shared := s.shared(order)
	b := treeBuilder{stacks: s, order: order, shared: shared, least: math.MinInt64}
	tree := &Tree{Type: s.Type, factor: s.factor}
	parts := make([]heaviest, 1)
	if most := len(order) / helped; visit == nil && most > 1 { // visit is not for several goroutines
		parts = make([]heaviest, min(most, runtime.GOMAXPROCS(0)))
	}
	visits := make([]func(*weights), len(parts))
	for i := range parts {
		h := &parts[i]
		h.limit, h.least = limit, math.MinInt64
		visits[i] = func(w *weights) {
			if limit > 0 {
				h.add(s.weigh(w))
			}
			if visit != nil {
				visit(w)
			}
		}
	}
	tree.Nodes = s.nodes(order, shared, visits...)
	kept := tree.Nodes
	if limit > 0 && kept > limit {
		kept = limit
		h := &parts[0]
		for i := range parts[1:] {
			h.weights = append(h.weights, parts[i+1].weights...)
		}
		h.cut()
		b.least = h.least
		for _, weight := range h.weights {
			if weight == b.least {
				b.ties++
			}
		}
	}
	b.left, b.places = make([]Node, kept), make([]*Node, kept)
	tree.Root = &Node{Function: new(Function)}
	var all weights
	for i := range order {
		s.add(&all, order[i])
	}
	b.weigh(tree.Root, &all)
	b.grow(tree.Root, 0, len(order), 0)
	return tree
}

// sorted gives the samples in the order of their stacks, from the outermost frame on.
func (s *Stacks) sorted() []int32 {
	keys := make([]sortKey, len(s.Samples))
	for i := range keys {
		keys[i].sample = int32(i)
	}
	by := sorter{stacks: s, helpers: make(chan struct{}, runtime.GOMAXPROCS(0)-1)}
	by.sort(keys, 0)
	by.wait.Wait()
	order := make([]int32, len(keys))
	for i := range keys {
		order[i] = keys[i].sample
	}
	return order
}

// sortKey is a sample with its functions at two depths, which are looked up once: each look is a miss of the cache.
type sortKey struct {
	functions uint64
	sample    int32
}

// sorter sorts samples: other goroutines sort those that are equal until some depth, for each CPU that the program may use.
type sorter struct {
	stacks  *Stacks
	helpers chan struct{} // that are at work
	wait    sync.WaitGroup
}

// helped is from how many samples on another goroutine is worth its start.
const helped = 512

// sort orders samples that are equal until a depth by their frames from there on.
func (s *sorter) sort(keys []sortKey, depth int) {
	if len(keys) < 2 {
		return
	}
	for i := range keys {
		k := &keys[i]
		if k.functions = uint64(s.stacks.at(k.sample, depth)+1) << 32; k.functions != 0 {
			k.functions |= uint64(s.stacks.at(k.sample, depth+1) + 1)
		}
	}
	s.part(keys, depth)
}

// share has another goroutine order keys, if there is one and they are worth it.
func (s *sorter) share(keys []sortKey, depth int, order func(*sorter, []sortKey, int)) {
	if len(keys) >= helped {
		select {
		case s.helpers <- struct{}{}:
			s.wait.Go(func() {
				order(s, keys, depth)
				<-s.helpers
			})
			return
		default:
		}
	}
	order(s, keys, depth)
}

// part orders samples whose keys are those of a depth: quicksort.
func (s *sorter) part(keys []sortKey, depth int) {
	for len(keys) > 1 {
		pivot := keys[len(keys)/2].functions
		low, high := 0, len(keys)
		for i := low; i < high; {
			switch f := keys[i].functions; {
			case f < pivot:
				keys[i], keys[low] = keys[low], keys[i]
				low++
				i++
			case f > pivot:
				high--
				keys[i], keys[high] = keys[high], keys[i]
			default:
				i++
			}
		}
		if uint32(pivot) != 0 { // they do not end here
			s.share(keys[low:high], depth+2, (*sorter).sort)
		}
		s.share(keys[:low], depth, (*sorter).part)
		keys = keys[high:]
	}
}

// nodes counts the nodes of samples in their order, in as many parts of these as there are visits, side by side; each calls its visit with the weights of each node.
func (s *Stacks) nodes(order, shared []int32, visits ...func(*weights)) int {
	runs := make([]run, len(visits))
	var wait sync.WaitGroup
	for i := range runs {
		from, to := i*len(order)/len(runs), (i+1)*len(order)/len(runs)
		wait.Go(func() {
			r := run{visit: visits[i]} // beside the others, each would take the line of the cache from the others at each node
			r.walk(s, order[from:to], shared[from:to])
			runs[i] = r
		})
	}
	wait.Wait()
	all := &runs[0]
	for i := range runs[1:] {
		all.join(&runs[i+1])
	}
	all.leave(0)
	return all.count
}

// run is a part of sorted samples. A node that goes on from the part before, or into the next one, has a part of its weights in each; join puts them together.
type run struct {
	count int
	visit func(*weights)
	path  []weights // of the nodes of the last sample, the outermost first, but for what those below them weigh
	// Of the nodes that go on from the part before: how many did not end here, and what the others weigh here, the innermost first.
	open  int
	ended []weights
}

// walk goes through samples that have the first so many nodes in common with the one before them.
func (r *run) walk(s *Stacks, order, shared []int32) {
	if len(order) == 0 {
		return
	}
	r.open = int(shared[0])
	r.path = make([]weights, r.open)
	for i, sample := range order {
		r.leave(int(shared[i]))
		of := len(s.Samples[sample].Frames)
		if s.Grouped {
			of++
		}
		for len(r.path) < of {
			r.path = append(r.path, weights{})
		}
		if of > 0 {
			s.add(&r.path[of-1], sample)
		}
	}
}

// leave ends the nodes below a depth.
func (r *run) leave(depth int) {
	for len(r.path) > depth {
		if len(r.path) == r.open {
			r.open--
			r.ended = append(r.ended, *r.pop())
			continue
		}
		r.end(r.pop())
	}
}

// pop takes the innermost node from the path: what it weighs belongs to the one above it too. It is valid until the path grows.
func (r *run) pop() *weights {
	last := len(r.path) - 1
	of := &r.path[last]
	if r.path = r.path[:last]; last > 0 {
		r.path[last-1].sum(of)
	}
	return of
}

func (r *run) end(of *weights) {
	r.count++
	r.visit(of)
}

// join puts the next part behind this one, the first or all until there.
func (r *run) join(next *run) {
	r.leave(next.open + len(next.ended))
	for i := range next.ended {
		of := r.pop() // the node above has what next found of it, as it is counted there
		of.sum(&next.ended[i])
		r.end(of)
	}
	for i := range next.open {
		r.path[i].sum(&next.path[i])
	}
	r.path = append(r.path, next.path[next.open:]...)
	r.count += next.count
}

// shared gives for each sample until which depth it has the functions of the one before it. Each is a miss of the cache or two, and none depends on another.
func (s *Stacks) shared(order []int32) []int32 {
	depths := make([]int32, len(order))
	var wait sync.WaitGroup
	part := max(helped, (len(order)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for from := 0; from < len(order); from += part {
		wait.Go(func() {
			for i := max(1, from); i < min(from+part, len(order)); i++ {
				depths[i] = int32(s.common(order[i-1], order[i]))
			}
		})
	}
	wait.Wait()
	return depths
}

// common is until which depth two samples have the same functions.
func (s *Stacks) common(a, b int32) (depth int) {
	x, y := &s.Samples[a], &s.Samples[b]
	if s.Grouped {
		if x.Group.function() != y.Group.function() {
			return 0
		}
		depth = 1
	}
	for i, j := len(x.Frames)-1, len(y.Frames)-1; i >= 0 && j >= 0 && x.Frames[i].function() == y.Frames[j].function(); i, j = i-1, j-1 {
		depth++
	}
	return depth
}

// heaviest keeps the limit heaviest of weights.
type heaviest struct {
	limit   int
	weights []int64
	least   int64     // what weighs no more is not among them
	_       [128]byte // several goroutines have one each, which are to be in no line of the cache together
}

func (h *heaviest) add(weight int64) {
	if weight <= h.least {
		return
	}
	if h.weights = append(h.weights, weight); len(h.weights) == 2*h.limit {
		h.cut()
	}
}

// cut keeps the limit heaviest: by parting the weights until so many are on one side, which takes a tenth of the time of sorting them.
func (h *heaviest) cut() {
	w := h.weights
	for low, high := 0, len(w)-1; low < high; {
		pivot := w[low+rand.IntN(high-low+1)] // programs choose names, by which nodes are ordered: nobody is to make this slow
		i, j := low, high
		for i <= j {
			for w[i] > pivot {
				i++
			}
			for w[j] < pivot {
				j--
			}
			if i <= j {
				w[i], w[j] = w[j], w[i]
				i, j = i+1, j-1
			}
		}
		// All until j weigh no less than the pivot, all from i on no more, and what is between weighs as much.
		switch last := h.limit - 1; {
		case last <= j:
			high = j
		case last >= i:
			low = i
		default:
			low = high
		}
	}
	h.weights = w[:h.limit]
	h.least = w[h.limit-1]
}

// treeBuilder makes the nodes of sorted stacks.
type treeBuilder struct {
	stacks *Stacks
	order  []int32
	shared []int32 // until which depth each has the functions of the one before it
	least  int64   // nodes that weigh less are left out,
	ties   int     // and of those that weigh as much, all but so many
	left   []Node  // that are to be made
	places []*Node // for them among the children of others
	// Of the nodes on the way to one that is made.
	branches []branch
	children []*Node
}

// branch is a node to be: a function, as it was called, and where its samples are in the order.
type branch struct {
	weights
	function int32
	inlined  bool
	from, to int
}

func (b *treeBuilder) node(of branch) *Node {
	n := &b.left[0]
	b.left = b.left[1:]
	n.Function, n.Kind = &b.stacks.list[of.function], b.stacks.kinds[of.function]
	n.Inlined = of.inlined
	b.weigh(n, &of.weights)
	return n
}

// weigh sets what a node weighs, but for what ends there.
func (b *treeBuilder) weigh(n *Node, w *weights) {
	if n.Total = w.Weight; b.stacks.compared {
		n.SelfBefore, n.TotalBefore = new(Weight), &Weight{w.before.Samples, w.before.Value}
	}
}

// together says whether a sample is in the branch of the one before it: of this function at a depth until which they are equal, or one that ends there too.
func (b *treeBuilder) together(i int, function int32, depth int) bool {
	if function < 0 {
		return b.stacks.at(b.order[i], depth) < 0
	}
	return int(b.shared[i]) > depth
}

// grow makes the nodes below one, the stacks of which are equal until a depth.
func (b *treeBuilder) grow(n *Node, from, to, depth int) {
	base := len(b.branches)
	for i := from; i < to; {
		function := b.stacks.at(b.order[i], depth)
		of := branch{function: function, inlined: true, from: i}
		for more := true; more; more = i < to && b.together(i, function, depth) {
			sample := &b.stacks.Samples[b.order[i]]
			b.stacks.add(&of.weights, b.order[i])
			of.inlined = of.inlined && function >= 0 && b.stacks.inlined(sample, depth)
			i++
		}
		if function < 0 { // they end here
			if n.Self = of.Weight; n.SelfBefore != nil {
				*n.SelfBefore = of.before
			}
			continue
		}
		of.to = i
		b.branches = append(b.branches, of)
	}
	branches := b.branches[base:]
	slices.SortFunc(branches, func(x, y branch) int {
		if order := cmp.Or(cmp.Compare(b.stacks.weigh(&y.weights), b.stacks.weigh(&x.weights)), cmp.Compare(y.Samples, x.Samples)); order != 0 {
			return order
		}
		return b.stacks.list[x.function].compare(b.stacks.list[y.function])
	})
	n.calls = len(branches)
	first := len(b.children)
	for _, of := range branches {
		weight := b.stacks.weigh(&of.weights)
		if weight < b.least || weight == b.least && b.ties == 0 {
			break
		}
		if weight == b.least {
			b.ties--
		}
		child := b.node(of)
		b.children = append(b.children, child)
		b.grow(child, of.from, of.to, depth+1)
	}
	if kept := len(b.children) - first; kept > 0 {
		n.Children, b.places = b.places[:kept:kept], b.places[kept:]
		copy(n.Children, b.children[first:])
	}
	b.branches, b.children = b.branches[:base], b.children[:first]
}
