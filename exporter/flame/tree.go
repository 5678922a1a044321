package flame

import (
	"math"
	"slices"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Tree is all stacks of a profile from the outermost frame inwards: a flame graph.
type Tree struct {
	Type profile.Type `json:"type"`
	// Root is no function. Its Total is the whole profile; its Self are samples without any frame.
	Root *Node `json:"root"`
	// Nodes is how many there are, without Root.
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
	weights := make([]int64, 0, t.Nodes)
	var collect func(n *Node)
	collect = func(n *Node) {
		for _, c := range n.Children {
			weights = append(weights, t.Weigh(c))
			collect(c)
		}
	}
	collect(t.Root)
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
	return n.Total.Value + int64(t.factor*float64(n.TotalBefore.Value))
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
}

// NewTree puts the stacks of a profile together.
func NewTree(p *profile.Profile) *Tree {
	b := treeBuilder{frames: newFrames(), index: make(map[edge]int32)}
	root := b.node(-1, -1, false)
	for i := range p.Samples {
		s := &p.Samples[i]
		stack := b.frames.of(s)
		at := root
		b.nodes[at].total.add(s)
		for j := len(stack) - 1; j >= 0; j-- {
			at = b.child(at, stack[j])
			b.nodes[at].total.add(s)
		}
		b.nodes[at].self.add(s)
	}
	return &Tree{Type: p.Type, Root: b.build(), Nodes: len(b.nodes) - 1}
}

// treeBuilder holds the nodes in one slice and their children in one map: a map for each node would take many times the memory.
type treeBuilder struct {
	frames *frames
	nodes  []growingNode
	index  map[edge]int32
}

type edge struct{ parent, function int32 }

type growingNode struct {
	self, total Weight
	edge
	inlined  bool
	children int32
}

func (b *treeBuilder) node(parent, function int32, inlined bool) int32 {
	b.nodes = append(b.nodes, growingNode{edge: edge{parent, function}, inlined: inlined})
	return int32(len(b.nodes) - 1)
}

func (b *treeBuilder) child(parent int32, f frame) int32 {
	key := edge{parent, f.function}
	n, ok := b.index[key]
	if !ok {
		n = b.node(parent, f.function, f.inlined)
		b.index[key] = n
		b.nodes[parent].children++
	}
	b.nodes[n].inlined = b.nodes[n].inlined && f.inlined
	return n
}

// build makes the nodes that callers see. A parent stands before its children.
func (b *treeBuilder) build() *Node {
	b.index = nil
	nodes := make([]Node, len(b.nodes))
	children := make([]*Node, len(b.nodes))
	nodes[0].Function = new(Function)
	for i := range b.nodes {
		from, to := &b.nodes[i], &nodes[i]
		to.Self, to.Total, to.Inlined = from.self, from.total, from.inlined
		if from.children > 0 {
			to.Children, children = children[:0:from.children], children[from.children:]
		}
		if from.function >= 0 {
			to.Function, to.Kind = &b.frames.functions[from.function], b.frames.kinds[from.function]
			parent := &nodes[from.parent]
			parent.Children = append(parent.Children, to)
		}
	}
	for i := range nodes {
		slices.SortFunc(nodes[i].Children, func(x, y *Node) int {
			if order := x.Total.heavier(y.Total); order != 0 {
				return order
			}
			return x.Function.compare(*y.Function)
		})
	}
	return &nodes[0]
}
