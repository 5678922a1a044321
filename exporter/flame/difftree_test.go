package flame

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Each half of the tree is the tree of that profile, and a node of one path is as significant as the function of that path alone.
func TestDiffTree(t *testing.T) {
	before := profileOf(sampleOf(300, "app:f", "app:main"), sampleOf(300, "app:same", "app:main"), sampleOf(50, "app:gone", "app:old", "app:main"))
	after := profileOf(sampleOf(100, "app:f", "app:main"), sampleOf(200, "app:same", "app:main"), sampleOf(90, "k:new", "app:main"), sampleOf(2, "app:f"))
	tree, d, err := DiffTree(before, after, ByShare, 0)
	if err != nil {
		t.Fatal(err)
	}
	var significant []string
	var half func(n *Node, weight func(*Node) (self, total Weight)) *Node
	half = func(n *Node, weight func(*Node) (self, total Weight)) *Node {
		out := &Node{Function: n.Function, Kind: n.Kind, Inlined: n.Inlined}
		out.Self, out.Total = weight(n)
		for _, c := range n.Children {
			if _, total := weight(c); total.Samples > 0 {
				out.Children = append(out.Children, half(c, weight))
			}
		}
		return out
	}
	b := half(tree.Root, func(n *Node) (Weight, Weight) { return *n.SelfBefore, *n.TotalBefore })
	a := half(tree.Root, func(n *Node) (Weight, Weight) { return n.Self, n.Total })
	var visit func(n *Node)
	visit = func(n *Node) {
		if n.Significant {
			significant = append(significant, n.Name)
		}
		for _, c := range n.Children {
			visit(c)
		}
	}
	visit(tree.Root)
	parts := func(n *Node) string { // without their order, which is that of both together
		all := strings.FieldsFunc(text(n), func(r rune) bool { return strings.ContainsRune("(),", r) })
		for i := range all {
			all[i] = strings.TrimSpace(all[i])
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	if got, want := parts(b), parts(NewTree(before).Root); got != want {
		t.Errorf("before %s, want %s", got, want)
	}
	if got, want := parts(a), parts(NewTree(after).Root); got != want {
		t.Errorf("after %s, want %s", got, want)
	}
	if tree.Nodes != 7 || d.Before.Samples != 650 || d.After.Samples != 392 || tree.Root.Children[0].Children[0].Name != "same" {
		t.Errorf("%d nodes, %+v: %s", tree.Nodes, d, text(tree.Root))
	}
	for _, name := range []string{"f", "new", "old", "gone"} {
		if !strings.Contains(strings.Join(significant, " "), name) {
			t.Errorf("%s is not significant: %v", name, significant)
		}
	}
	if strings.Contains(strings.Join(significant, " "), "same") {
		t.Errorf("same is significant: %v", significant)
	}
	if least, ties := tree.Heaviest(3); least != tree.Weigh(tree.Root.Children[0].Children[1]) || ties != 1 {
		t.Errorf("%d, %d", least, ties)
	}
}

// A tree that is bounded has the heaviest nodes of the whole one, as they are there.
func TestDiffTreeLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(samples int) *profile.Profile {
		p := profileOf()
		for range samples {
			var stack []string
			for range r.IntN(6) {
				stack = append(stack, "app:"+string(rune('a'+r.IntN(4))))
			}
			p.Samples = append(p.Samples, sampleOf(int64(r.IntN(9)), append(stack, "app:main")...))
		}
		return p
	}
	for _, sides := range [][2]int{{200, 300}, {0, 200}, {200, 0}} {
		before, after := random(sides[0]), random(sides[1])
		whole, _, err := DiffTree(before, after, ByShare, 0)
		if err != nil {
			t.Fatal(err)
		}
		nodes := make(map[string]*Node)
		visit(whole.Root, "", func(path string, n *Node) {
			nodes[path] = n
			if n.Calls() != len(n.Children) {
				t.Errorf("%s has %d calls of %d", path, n.Calls(), len(n.Children))
			}
		})
		for _, limit := range []int{1, 10, 100} {
			tree, _, err := DiffTree(before, after, ByShare, limit)
			if err != nil {
				t.Fatal(err)
			}
			least, _ := whole.Heaviest(limit)
			kept := -1 // without the root
			visit(tree.Root, "", func(path string, n *Node) {
				kept++
				same, bare := *nodes[path], *n
				same.Children, bare.Children = nil, nil
				same.Function, bare.Function = nil, nil
				if !reflect.DeepEqual(same, bare) || tree.Weigh(n) < least {
					t.Errorf("%d to %d samples, limit %d: %s is %+v, want %+v", sides[0], sides[1], limit, path, bare, same)
				}
			})
			if kept != limit || tree.Nodes != whole.Nodes {
				t.Errorf("limit %d: %d kept, %d of %d nodes", limit, kept, tree.Nodes, whole.Nodes)
			}
		}
	}
}

// visit visits a node and all below it.
func visit(n *Node, path string, of func(path string, n *Node)) {
	path += ";" + n.Name
	of(path, n)
	for _, c := range n.Children {
		visit(c, path, of)
	}
}

func TestPlaces(t *testing.T) {
	s := sampleOf(3, "app:in&f", "lib:f", "app:main")
	s.User.Locations[0].Lines[1] = profile.Line{Function: &profile.Function{Name: "f", File: "f.c", StartLine: 10}, Line: 12}
	u := sampleOf(2, "app:f", "app:main")
	u.User.Locations[0].Mapping.BuildID = "ab"
	u.User.Locations[0].Lines[0] = profile.Line{Function: &profile.Function{Name: "f", File: "f.c", StartLine: 10}, Line: 14}
	got := Places(profileOf(s, u, u), "f")
	want := []Place{
		{"/bin/app", "", "f.c", 10, []LineWeight{}}, // in was inlined there: nothing of f itself
		{"/bin/app", "ab", "f.c", 10, []LineWeight{{14, Weight{4, 40}}}},
		{"/bin/lib", "", "", 0, []LineWeight{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
