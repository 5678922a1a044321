package flame

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Scale is what two profiles are compared by.
type Scale string

const (
	// ByShare compares shares of all samples: it sees what a program spends its time on, however busy it was.
	ByShare Scale = "share"
	// ByTime compares what was taken in a second.
	ByTime Scale = "time"
)

// FalseDiscoveryRate is how many of the differences called significant are there by chance, at most, on average.
const FalseDiscoveryRate = 0.05

// Difference is how one profile differs from another.
type Difference struct {
	Type   profile.Type `json:"type"`
	Scale  Scale        `json:"scale"`
	Before Side         `json:"before"`
	After  Side         `json:"after"`
	// Functions are those of both, in the order of Sort(false).
	Functions []Change `json:"functions"`
}

// Side is one of the two profiles.
type Side struct {
	Weight
	Duration time.Duration `json:"duration"`
	// Period is the distance of two samples, in the unit of the type; 0 where it is not known.
	Period int64 `json:"period"`
}

// Change is how a function differs.
type Change struct {
	Function
	Kind  Kind       `json:"kind"`
	Self  Comparison `json:"self"`
	Total Comparison `json:"total"`
}

// Comparison is a quantity before and after.
type Comparison struct {
	Before Weight `json:"before"`
	After  Weight `json:"after"`
	// BeforePart and AfterPart are Value in the scale: a share from 0 to 1, or the value in one
	// second (of CPU nanoseconds: in 1e9 of them, which is CPUs).
	BeforePart float64 `json:"beforePart"`
	AfterPart  float64 `json:"afterPart"`
	// P is how likely it is that chance alone divides the samples as unevenly; Q is P corrected for the number of functions.
	P float64 `json:"p"`
	Q float64 `json:"q"`
	// Significant says that Q is at most FalseDiscoveryRate.
	Significant bool `json:"significant"`
}

// Change is AfterPart - BeforePart.
func (c *Comparison) Change() float64 { return c.AfterPart - c.BeforePart }

// Diff compares two profiles of one type, function by function. Where one of them does not tell modules, as folded
// text does not, functions are the same by name.
//
// Differences are tested in samples, as [Comparison] says and docs/diff.md explains: it takes them for independent, as if each had
// been drawn for itself. Samples of one burst of work are not. So a significant difference says that the two spans of time differ by more than
// the sampling blurs; it does not say that two other spans would.
func Diff(before, after *profile.Profile, scale Scale) (*Difference, error) {
	d, stacks, err := compare(before, after, scale)
	if err != nil {
		return nil, err
	}
	a, b := stacks.sides()
	d.join(a.Top(), b.Top())
	for _, of := range []func(*Change) *Comparison{
		func(c *Change) *Comparison { return &c.Self },
		func(c *Change) *Comparison { return &c.Total },
	} {
		all := make(chances)
		for i := range d.Functions {
			c := of(&d.Functions[i])
			all.of(c.Before, c.After).times++
		}
		d.test(all)
		for i := range d.Functions {
			c := of(&d.Functions[i])
			chance := all.of(c.Before, c.After)
			c.P, c.Q, c.Significant = chance.p, chance.q, chance.significant()
		}
	}
	d.Sort(false)
	return d, nil
}

// compare begins a comparison, and gives the stacks of both as they are compared.
func compare(before, after *profile.Profile, scale Scale) (*Difference, *Stacks, error) {
	if before.Type != after.Type {
		return nil, nil, fmt.Errorf("profiles of %s/%s and %s/%s cannot be compared",
			before.Type.Name, before.Type.Unit, after.Type.Name, after.Type.Unit)
	}
	if scale == ByTime && (before.Duration <= 0 || after.Duration <= 0) {
		return nil, nil, errors.New("a profile does not tell its duration: compare by share")
	}
	if err := errors.Join(Check(before), Check(after)); err != nil {
		return nil, nil, err
	}
	stacks := NewStacks(before, after)
	stacks.before = len(before.Samples)
	a, b := stacks.sides()
	if !a.hasModules() || !b.hasModules() {
		stacks = NewStacks(withoutModules(before), withoutModules(after))
	}
	d := &Difference{
		Type: before.Type, Scale: scale,
		Before: Side{a.Total(), before.Duration, before.Period},
		After:  Side{b.Total(), after.Duration, after.Period},
	}
	stacks.compared, stacks.before, stacks.factor = true, len(before.Samples), d.Factor()
	return d, stacks, nil
}

// Sort orders the functions by Self, or else by Total: the significant differences first, and of those the largest.
func (d *Difference) Sort(byTotal bool) {
	slices.SortFunc(d.Functions, func(x, y Change) int {
		a, b, c, e := &x.Self, &y.Self, &x.Total, &y.Total
		if byTotal {
			a, b, c, e = c, e, a, b
		}
		return cmp.Or(compareBool(b.Significant, a.Significant), cmp.Compare(math.Abs(b.Change()), math.Abs(a.Change())),
			compareBool(e.Significant, c.Significant), cmp.Compare(math.Abs(e.Change()), math.Abs(c.Change())),
			x.Function.compare(y.Function))
	})
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// hasModules looks at user code alone: the kernel is known by its frames' kind.
func (s *Stacks) hasModules() bool {
	has := func(f Frame) bool {
		return s.list[f.function()].Module != "" && s.kinds[f.function()] != Kind(profile.FrameKernel)
	}
	return slices.ContainsFunc(s.Samples, func(sample StackSample) bool { return slices.ContainsFunc(sample.Frames, has) })
}

// Check refuses what cannot be counted: profiles that are differences themselves.
func Check(p *profile.Profile) error {
	for i := range p.Samples {
		if s := &p.Samples[i]; s.Count < 0 || s.Value < 0 {
			return errors.New("the profile has negative samples: it is a difference itself, which go tool pprof shows")
		}
	}
	return nil
}

// withoutModules gives the profile with all user code in one.
func withoutModules(p *profile.Profile) *profile.Profile {
	out := *p
	out.Samples = slices.Clone(p.Samples)
	locations := make(map[*profile.Location]*profile.Location)
	stacks := make(map[*profile.Stack]*profile.Stack)
	for i := range out.Samples {
		s := &out.Samples[i]
		if s.User == nil {
			continue
		}
		if stacks[s.User] == nil {
			stack := *s.User
			stack.Locations = slices.Clone(stack.Locations)
			for j, l := range stack.Locations {
				if locations[l] == nil {
					bare := *l
					bare.Mapping = nil
					locations[l] = &bare
				}
				stack.Locations[j] = locations[l]
			}
			stacks[s.User] = &stack
		}
		s.User = stacks[s.User]
	}
	return &out
}

// join pairs the functions of both.
func (d *Difference) join(a, b *Table) {
	index := make(map[Function]int)
	find := func(r *Row) *Change {
		i, ok := index[r.Function]
		if !ok {
			i = len(d.Functions)
			index[r.Function] = i
			d.Functions = append(d.Functions, Change{Function: r.Function, Kind: r.Kind})
		}
		return &d.Functions[i]
	}
	for i := range a.Rows {
		c := find(&a.Rows[i])
		c.Self.Before, c.Total.Before = a.Rows[i].Self, a.Rows[i].Total
	}
	for i := range b.Rows {
		c := find(&b.Rows[i])
		c.Self.After, c.Total.After = b.Rows[i].Self, b.Rows[i].Total
	}
	for i := range d.Functions {
		for _, c := range []*Comparison{&d.Functions[i].Self, &d.Functions[i].Total} {
			c.BeforePart, c.AfterPart = d.part(&d.Before, c.Before), d.part(&d.After, c.After)
		}
	}
}

func (d *Difference) part(side *Side, w Weight) float64 {
	whole := float64(side.Value)
	if d.Scale == ByTime {
		whole = side.Duration.Seconds()
	}
	if whole == 0 {
		return 0
	}
	return float64(w.Value) / whole
}

// chances tell how likely chance alone makes a difference, by the samples before and after: most functions and nodes have few, and many have the same.
type chances map[[2]int64]*chance

type chance struct {
	times int // functions, or nodes, that have as many
	p, q  float64
}

func (c chances) of(before, after Weight) *chance {
	key := [2]int64{before.Samples, after.Samples}
	of := c[key]
	if of == nil {
		of = &chance{p: 1, q: 1}
		c[key] = of
	}
	return of
}

func (c *chance) significant() bool { return c.q <= FalseDiscoveryRate }

// test finds P and Q.
func (d *Difference) test(all chances) {
	var tested []*chance
	for samples, c := range all {
		n := samples[0] + samples[1]
		if n == 0 || d.Before.Samples == 0 || d.After.Samples == 0 {
			continue
		}
		s := d.split(n)
		c.p = s.pValue(samples[0])
		// With so few samples no split could ever be significant: the others need not be corrected for it (Tarone). This
		// depends on n alone, and so not on how it was split.
		if s.leastPValue() <= FalseDiscoveryRate {
			tested = append(tested, c)
		}
	}
	adjust(tested)
}

func (d *Difference) split(n int64) split {
	if d.Scale == ByShare {
		return byShare(n, d.Before.Samples, d.After.Samples)
	}
	before, after := d.exposure(&d.Before), d.exposure(&d.After)
	return byTime(n, before/(before+after))
}

// Factor is what numbers before have to be multiplied by to be compared with those after.
func (d *Difference) Factor() float64 {
	before, after := float64(d.Before.Samples), float64(d.After.Samples)
	if d.Scale == ByTime {
		before, after = d.exposure(&d.Before), d.exposure(&d.After)
	}
	if before == 0 {
		return 1
	}
	return after / before
}

// exposure is how many samples one busy CPU would have made in the time, in a unit that is the same on both sides.
func (d *Difference) exposure(s *Side) float64 {
	if d.Before.Period > 0 && d.After.Period > 0 {
		return s.Duration.Seconds() / float64(s.Period)
	}
	return s.Duration.Seconds()
}
