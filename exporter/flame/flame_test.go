package flame

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// sampleOf makes a sample of 10 ns for each count. Frames are given innermost first, as MODULE:NAME; k: is the
// kernel, and names joined by & are one location, the inlined ones first.
func sampleOf(count int64, frames ...string) profile.Sample {
	s := profile.Sample{Labels: &profile.Labels{PID: 7, Comm: "app"}, Count: count, Value: 10 * count}
	for _, text := range frames {
		module, names, _ := strings.Cut(text, ":")
		l := &profile.Location{Kind: profile.FrameNative, Mapping: &profile.Mapping{Path: "/bin/" + module}}
		side := &s.User
		if module == "k" {
			l.Kind, l.Mapping, side = profile.FrameKernel, &profile.Mapping{Path: "[kernel.kallsyms]"}, &s.Kernel
		}
		for name := range strings.SplitSeq(names, "&") {
			l.Lines = append(l.Lines, profile.Line{Function: &profile.Function{Name: name}})
		}
		if *side == nil {
			*side = new(profile.Stack)
		}
		(*side).Locations = append((*side).Locations, l)
	}
	return s
}

func cutShort(s profile.Sample, reason string) profile.Sample {
	if s.User == nil {
		s.User = new(profile.Stack)
	}
	s.User.Truncated = reason
	return s
}

func profileOf(samples ...profile.Sample) *profile.Profile {
	return &profile.Profile{Type: profile.TypeCPU, Period: 10, Duration: 10e9, Samples: samples}
}

// text is a tree in one line: kind NAME self/total (children).
func text(n *Node) string {
	var children []string
	for _, c := range n.Children {
		children = append(children, text(c))
	}
	out := fmt.Sprintf("%s %d/%d", n.Name, n.Self.Samples, n.Total.Samples)
	if n.Kind != "" && n.Kind != "native" {
		out = string(n.Kind) + " " + out
	}
	if n.Inlined {
		out = "inlined " + out
	}
	if len(children) > 0 {
		out += " (" + strings.Join(children, ", ") + ")"
	}
	return out
}

func TestTree(t *testing.T) {
	unnamed := sampleOf(1, "app:[app+0x10]", "app:main")
	unnamed.User.Locations[0].Unnamed = "no_symbol"
	p := profileOf(
		sampleOf(3, "app:f", "app:g", "app:f", "app:main"), // recursion is two nodes
		sampleOf(4, "app:in&g", "app:f", "app:main"),
		sampleOf(2, "app:in", "app:g", "app:f", "app:main"), // the same, but not inlined here
		sampleOf(5, "k:vfs_read", "lib:_ZN3foo3barEv", "app:main"),
		cutShort(sampleOf(6, "app:leaf"), "unmapped_pc"),
		cutShort(sampleOf(1), "stack_evicted"),
		unnamed,
		profile.Sample{Count: 8, Value: 80},
		sampleOf(1, "other:main"),
		sampleOf(2, "app:only&outer"),
	)
	tree := NewTree(p)
	want := " 8/33 (main 0/15 (f 0/9 (g 0/9 (in 6/6, f 3/3)), foo::bar 0/5 (kernel vfs_read 5/5), unknown [app+0x10] 1/1), " +
		"truncated [truncated: unmapped pc] 0/6 (leaf 6/6), outer 0/2 (inlined only 2/2), truncated [truncated: stack evicted] 1/1, main 1/1)"
	if got := text(tree.Root); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if tree.Nodes != 14 || tree.Root.Total.Value != 330 {
		t.Errorf("%d nodes, %+v", tree.Nodes, tree.Root.Total)
	}
	if m := tree.Root.Children[0].Children[1]; m.Module != "lib" || m.Children[0].Module != "[kernel.kallsyms]" {
		t.Errorf("%+v, %+v", m.Function, m.Children[0].Function)
	}
	if got := text(NewTree(profileOf()).Root); got != " 0/0" {
		t.Errorf("of nothing: %s", got)
	}
	conserved(t, p)
}

// conserved checks the sums of a profile's tree: each node is its own samples and those of its children.
func conserved(t *testing.T, p *profile.Profile) {
	t.Helper()
	var want Weight
	for i := range p.Samples {
		want.add(Weight{p.Samples[i].Count, p.Samples[i].Value})
	}
	tree := NewTree(p)
	nodes := -1
	var visit func(n *Node)
	visit = func(n *Node) {
		nodes++
		sum := n.Self
		for i, c := range n.Children {
			sum.Samples, sum.Value = sum.Samples+c.Total.Samples, sum.Value+c.Total.Value
			if i > 0 && c.Total.Value > n.Children[i-1].Total.Value {
				t.Errorf("children of %s are not in order", n.Name)
			}
			visit(c)
		}
		if sum != n.Total {
			t.Errorf("%s: %+v, its parts %+v", n.Name, n.Total, sum)
		}
	}
	visit(tree.Root)
	if tree.Root.Total != want || nodes != tree.Nodes {
		t.Errorf("%+v, want %+v; %d nodes, said to be %d", tree.Root.Total, want, nodes, tree.Nodes)
	}
	if table := Top(p); table.Total != want {
		t.Errorf("table: %+v, want %+v", table.Total, want)
	}
}

func TestTop(t *testing.T) {
	table := Top(
		profileOf(sampleOf(3, "app:f", "app:g", "app:f", "app:main"), sampleOf(1, "app:inner&outer"), sampleOf(1, "k:sys", "app:main")),
		profileOf(cutShort(sampleOf(1), "no_table"), sampleOf(1, "app:_ZN3foo3barEv.llvm.1", "app:_ZN3foo3barEv.llvm.2"), sampleOf(2, "other:main")),
	)
	var got []string
	for _, r := range table.Rows {
		got = append(got, fmt.Sprintf("%s:%s %d/%d", r.Module, r.Name, r.Self.Samples, r.Total.Samples))
	}
	want := []string{
		"app:f 3/3", "other:main 2/2", ":[truncated: no table] 1/1", "app:foo::bar 1/1", "app:inner 1/1", "[kernel.kallsyms]:sys 1/1", "app:main 0/4", "app:g 0/3", "app:outer 0/1",
	}
	if !slices.Equal(got, want) || table.Total != (Weight{9, 90}) {
		t.Errorf("got  %q\nwant %q\n%+v", got, want, table.Total)
	}
	if table := Top(); len(table.Rows) != 0 || table.Total != (Weight{}) {
		t.Errorf("of nothing: %+v", table)
	}
}

func TestCallersAndCallees(t *testing.T) {
	p := profileOf(
		sampleOf(3, "app:f", "app:g", "app:f", "app:main"), // f is called by g and by main
		sampleOf(2, "app:f", "app:f", "app:main"),          // and by itself, which is not listed
		sampleOf(4, "k:sys", "app:f", "lib:run"),
		cutShort(sampleOf(1, "app:f"), "no_rule"),
		sampleOf(9, "app:g"),
	)
	list := func(neighbours []Neighbour) (names []string) {
		for _, n := range neighbours {
			names = append(names, fmt.Sprintf("%s %s:%s %d", n.Kind, n.Module, n.Name, n.Weight.Samples))
		}
		return names
	}
	if got, want := list(Callers(p, "f")), []string{"native app:main 5", "native lib:run 4", "native app:g 3", "truncated :[truncated: no rule] 1"}; !slices.Equal(got, want) {
		t.Errorf("callers %q, want %q", got, want)
	}
	if got, want := list(Callees(p, "f")), []string{"kernel [kernel.kallsyms]:sys 4", "native app:g 3"}; !slices.Equal(got, want) {
		t.Errorf("callees %q, want %q", got, want)
	}
	if got := Callers(p, "nobody"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestSelect(t *testing.T) {
	redis := &profile.Labels{PID: 9, Comm: "_Z3foov", ContainerID: "abc"}
	p := profileOf(
		sampleOf(1, "app:in&f", "app:main"), sampleOf(2, "k:sys", "app:g", "app:main"),
		cutShort(sampleOf(4, "app:f"), "no_table"), cutShort(sampleOf(8), "stack_evicted"), sampleOf(16, "k:kthread"),
	)
	p.Samples[1].Labels, p.Samples[4].Labels = redis, redis
	before := NewTree(p)
	pattern := regexp.MustCompile
	for _, test := range []struct {
		name                string
		focus, ignore, hide *regexp.Regexp
		by                  string
		want                string
	}{
		{"focus", pattern("^in$"), nil, nil, "", " 0/1 (main 0/1 (f 0/1 (inlined in 1/1)))"},
		{"focus on what is missing", pattern("truncated"), nil, nil, "", " 0/12 (truncated [truncated: stack evicted] 8/8, truncated [truncated: no table] 0/4 (f 4/4))"},
		{"ignore", nil, pattern("truncated|kthread"), nil, "", " 0/3 (main 0/3 (g 0/2 (kernel sys 2/2), f 0/1 (inlined in 1/1)))"},
		{"both", pattern("main"), pattern("sys"), nil, "", " 0/1 (main 0/1 (f 0/1 (inlined in 1/1)))"},
		{"hide", nil, nil, pattern("^(main|in|kthread|.*no table.)$"), "", " 16/31 (truncated [truncated: stack evicted] 8/8, f 5/5, g 0/2 (kernel sys 2/2))"},
		{"by", nil, pattern("kthread"), nil, "comm", " 0/15 (label app 0/13 (truncated [truncated: stack evicted] 8/8, truncated [truncated: no table] 0/4 (f 4/4), main 0/1 (f 0/1 (inlined in 1/1))), " +
			"label _Z3foov 0/2 (main 0/2 (g 0/2 (kernel sys 2/2))))"},
		{"by a label that few have", nil, pattern("sys|evicted"), nil, "container_id", " 0/21 (label abc 0/16 (kernel kthread 16/16), " +
			"label [no container_id] 0/5 (truncated [truncated: no table] 0/4 (f 4/4), main 0/1 (f 0/1 (inlined in 1/1))))"},
		{"all", pattern("main|f"), pattern("g"), pattern("main"), "pid", " 0/5 (label 7 0/5 (truncated [truncated: no table] 0/4 (f 4/4), f 0/1 (inlined in 1/1)))"},
	} {
		selected := Select(p, test.focus, test.ignore, test.hide, test.by)
		if got := text(NewTree(selected).Root); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
		conserved(t, selected)
	}
	if Select(p, nil, nil, nil, "") != p {
		t.Error("nothing to do, and another profile")
	}
	if !reflect.DeepEqual(before, NewTree(p)) {
		t.Error("the profile was changed")
	}
}

// The heaviest nodes are as many as were asked for, and no other one is heavier than any of them.
func TestHeaviest(t *testing.T) {
	tree := NewTree(read(t, "testdata/gcc.pb.gz"))
	for _, n := range []int{0, 1, 2, 10, 500, tree.Nodes - 1, tree.Nodes, tree.Nodes + 1} {
		least, ties := tree.Heaviest(n)
		more, as := 0, 0
		var count func(*Node)
		count = func(node *Node) {
			for _, c := range node.Children {
				if c.Total.Value > least {
					more++
				} else if c.Total.Value == least {
					as++
				}
				count(c)
			}
		}
		count(tree.Root)
		if more+ties != min(n, tree.Nodes) || ties > as {
			t.Errorf("the heaviest %d of %d: %d weigh more than %d, %d of %d as much", n, tree.Nodes, more, least, ties, as)
		}
	}
}
