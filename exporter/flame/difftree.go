package flame

import "github.com/pilotlight/pilotlight/profiler/profile"

// DiffTree is the tree of both profiles, with as many of the heaviest nodes as the limit, if that is not 0. Self and Total of its nodes are
// of the one after, SelfBefore and TotalBefore of the other: a node that is in one of them alone weighs nothing in the other. The
// Difference has no functions.
func DiffTree(before, after *profile.Profile, scale Scale, limit int) (*Tree, *Difference, error) {
	d, stacks, err := compare(before, after, scale)
	if err != nil {
		return nil, nil, err
	}
	d.Functions = []Change{}
	// The tests are of all nodes, and nothing is kept of those that are left out but how many there are of each kind.
	all := make(chances)
	tree := stacks.tree(limit, func(w *weights) { all.of(w.before, w.Weight).times++ })
	all.of(*tree.Root.TotalBefore, tree.Root.Total).times++
	d.test(all)
	var mark func(n *Node)
	mark = func(n *Node) {
		n.Significant = all.of(*n.TotalBefore, n.Total).significant()
		for _, c := range n.Children {
			mark(c)
		}
	}
	mark(tree.Root)
	return tree, d, nil
}
