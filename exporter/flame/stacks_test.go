package flame

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// naive is the tree of a profile as its definition has it, with the limit heaviest nodes.
func naive(p *profile.Profile, limit int) *Tree {
	s := NewStacks(p)
	root := &Node{Function: new(Function)}
	tree := &Tree{Type: p.Type, Root: root}
	frames := newFrames(new(Functions))
	for i := range p.Samples {
		w := Weight{p.Samples[i].Count, p.Samples[i].Value}
		at := root
		at.Total.add(w)
		for _, f := range slices.Backward(frames.of(&p.Samples[i])) {
			function := frames.list[f.function()]
			next := slices.IndexFunc(at.Children, func(n *Node) bool { return *n.Function == function })
			if next < 0 {
				next = len(at.Children)
				at.Children = append(at.Children, &Node{Function: &function, Kind: s.kinds[s.index[function].function()], Inlined: true})
				at.calls++
				tree.Nodes++
			}
			at = at.Children[next]
			at.Total.add(w)
			at.Inlined = at.Inlined && f.inlined()
		}
		at.Self.add(w)
	}
	var sort func(*Node)
	sort = func(n *Node) {
		slices.SortFunc(n.Children, func(x, y *Node) int {
			if order := x.Total.heavier(y.Total); order != 0 {
				return order
			}
			return x.Function.compare(*y.Function)
		})
		for _, c := range n.Children {
			sort(c)
		}
	}
	sort(root)
	if limit == 0 {
		return tree
	}
	least, ties := tree.Heaviest(limit)
	var cut func(*Node)
	cut = func(n *Node) {
		kept := n.Children
		n.Children = nil
		for _, c := range kept {
			if c.Total.Value < least || c.Total.Value == least && ties == 0 {
				return
			}
			if c.Total.Value == least {
				ties--
			}
			n.Children = append(n.Children, c)
			cut(c)
		}
	}
	cut(root)
	return tree
}

// randomProfile has recursion, inlined functions, the same name in two files, both sides, what is missing, and samples without frames.
func randomProfile(r *rand.Rand) *profile.Profile {
	p := profileOf()
	for range 1 + r.IntN(300) {
		var frames []string
		for range r.IntN(9) {
			f := fmt.Sprintf("%c:f%d", "ab"[r.IntN(2)], r.IntN(6))
			for range r.IntN(3) {
				f += fmt.Sprintf("&f%d", r.IntN(6))
			}
			frames = append(frames, f)
		}
		if r.IntN(3) == 0 {
			frames = append([]string{"k:sys", "k:f1"}[:1+r.IntN(2)], frames...)
		}
		s := sampleOf(1+r.Int64N(5), frames...)
		s.Labels = &profile.Labels{Comm: fmt.Sprint("c", r.IntN(3))}
		if s.User != nil && r.IntN(4) == 0 {
			s.User.Locations[0].Unnamed = "no_symbol"
			s.User.Locations[0].Lines = []profile.Line{{Function: &profile.Function{Name: "[a+0x10]"}}}
		}
		if r.IntN(4) == 0 {
			s = cutShort(s, []string{"no_table", "max_depth"}[r.IntN(2)])
		}
		p.Samples = append(p.Samples, s)
	}
	return p
}

// largeProfile has so many stacks that several goroutines sort them: runs of those that have much in common, and of those that have nothing.
func largeProfile(r *rand.Rand) *profile.Profile {
	p := profileOf()
	for range 20 * helped {
		frames := []string{fmt.Sprint("f", r.IntN(1000)), fmt.Sprint("f", r.IntN(30))}
		for i := range r.IntN(3) {
			frames = append(frames, fmt.Sprint("f", i))
		}
		s := sampleOf(1+r.Int64N(5), append(frames, []string{"main", "thread"}[r.IntN(2)])...)
		s.Labels = &profile.Labels{Comm: fmt.Sprint("c", r.IntN(3))}
		p.Samples = append(p.Samples, s)
	}
	return p
}

// Trees are what their definition says, whole and with the heaviest nodes alone, of real profiles and of odd ones, whatever was selected; and Stacks
// select as Select does.
func TestTreesEqualTheirDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	files, err := filepath.Glob("testdata/*.pb.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for i := range 100 {
		p := randomProfile(r)
		if i == len(files) {
			p = largeProfile(r)
		}
		if i < len(files) {
			p = read(t, files[i])
		}
		pattern := func() *regexp.Regexp {
			if i < len(files) || r.IntN(2) == 0 {
				return nil
			}
			return regexp.MustCompile([]string{"f1", "f[23]", "sys|f0", "truncated", "^$", "table"}[r.IntN(6)])
		}
		focus, ignore, hide, by := pattern(), pattern(), pattern(), []string{"", "comm"}[r.IntN(2)]
		selected := Select(p, focus, ignore, hide, by)
		nodes := NewTree(selected).Nodes
		for _, limit := range []int{0, 1, 7, nodes - 1, nodes, nodes + 1} {
			limit = max(limit, 0)
			want, got := naive(selected, limit), NewStacks(selected).Tree(limit)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d, limit %d of %d:\ngot  %s\nwant %s", i, limit, nodes, text(got.Root), text(want.Root))
			}
		}
		if by == "" {
			want, got := NewStacks(selected), NewStacks(p).Select(focus, ignore, hide)
			if text(want.Tree(0).Root) != text(got.Tree(0).Root) || !reflect.DeepEqual(want.Top(), got.Top()) {
				t.Fatalf("round %d: Select(%v, %v, %v)\ngot  %s\nwant %s", i, focus, ignore, hide, text(got.Tree(0).Root), text(want.Tree(0).Root))
			}
		}
	}
}
