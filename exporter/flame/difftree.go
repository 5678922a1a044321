package flame

import (
	"cmp"
	"slices"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// DiffTree is the tree of both profiles. Self and Total of its nodes are of the one after, SelfBefore and TotalBefore
// of the other: a node that is in one of them alone weighs nothing in the other. The Difference has no functions.
func DiffTree(before, after *profile.Profile, scale Scale) (*Tree, *Difference, error) {
	d, before, after, err := compare(before, after, scale)
	if err != nil {
		return nil, nil, err
	}
	tree := NewTree(after)
	tree.factor = d.Factor()
	m := treeMerger{tree: tree, difference: d}
	m.merge(tree.Root, NewTree(before).Root)
	d.test(m.comparisons)
	for i, c := range m.comparisons {
		m.nodes[i].Significant = c.Significant
	}
	tree.Nodes = len(m.nodes) - 1
	d.Functions = []Change{}
	return tree, d, nil
}

type treeMerger struct {
	tree        *Tree
	difference  *Difference
	nodes       []*Node
	comparisons []*Comparison // of the nodes
}

// merge adds to a node what it was before. nil: it was not there.
func (m *treeMerger) merge(n, before *Node) {
	n.SelfBefore, n.TotalBefore = new(Weight), new(Weight)
	var children []*Node
	if before != nil {
		n.SelfBefore, n.TotalBefore, children = &before.Self, &before.Total, before.Children
	}
	m.nodes = append(m.nodes, n)
	m.comparisons = append(m.comparisons, &Comparison{Before: *n.TotalBefore, After: n.Total})
	known := make(map[Function]*Node, len(children))
	for _, c := range children {
		known[*c.Function] = c
	}
	for _, c := range n.Children {
		m.merge(c, known[*c.Function])
		delete(known, *c.Function)
	}
	for _, c := range children {
		if known[*c.Function] == nil {
			continue
		}
		gone := &Node{Function: c.Function, Kind: c.Kind, Inlined: c.Inlined}
		m.merge(gone, c)
		n.Children = append(n.Children, gone)
	}
	slices.SortFunc(n.Children, func(x, y *Node) int {
		return cmp.Or(cmp.Compare(m.tree.Weigh(y), m.tree.Weigh(x)), x.Function.compare(*y.Function))
	})
}
