package flame

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// exactTails sums the probabilities of all splits in whole numbers: those up to x and those from x on.
func exactTails(weight func(k int64) *big.Int, least, most, x int64) (lower, upper float64) {
	all, low, high := new(big.Int), new(big.Int), new(big.Int)
	for k := least; k <= most; k++ {
		w := weight(k)
		all.Add(all, w)
		if k <= x {
			low.Add(low, w)
		}
		if k >= x {
			high.Add(high, w)
		}
	}
	lower, _ = new(big.Rat).SetFrac(low, all).Float64()
	upper, _ = new(big.Rat).SetFrac(high, all).Float64()
	return lower, upper
}

// P-values against sums in whole numbers, for every split of small numbers and some of larger ones.
func TestPValuesAreExact(t *testing.T) {
	choose := func(n, k int64) *big.Int { return new(big.Int).Binomial(n, k) }
	check := func(name string, s split, weight func(k int64) *big.Int, x int64) {
		lower, upper := exactTails(weight, s.least, s.most, x)
		want := min(1, 2*lower)
		if float64(x) > s.mean {
			want = min(1, 2*upper)
		}
		if got := s.pValue(x); math.Abs(got-want) > 1e-9*want {
			t.Errorf("%s, x = %d: %g, want %g", name, x, got, want)
		}
	}
	hypergeometric := func(n, before, after int64) func(int64) *big.Int {
		return func(k int64) *big.Int { return new(big.Int).Mul(choose(before, k), choose(after, n-k)) }
	}
	binomial := func(n, a, b int64) func(int64) *big.Int { // p = a / (a + b)
		return func(k int64) *big.Int {
			w := new(big.Int).Exp(big.NewInt(a), big.NewInt(k), nil)
			w.Mul(w, new(big.Int).Exp(big.NewInt(b), big.NewInt(n-k), nil))
			return w.Mul(w, choose(n, k))
		}
	}
	for _, sides := range [][2]int64{{5, 5}, {3, 17}, {40, 11}, {1, 1}} {
		before, after := sides[0], sides[1]
		for n := int64(1); n <= before+after; n++ {
			s := byShare(n, before, after)
			for x := s.least; x <= s.most; x++ {
				check(fmt.Sprintf("%d of %d and %d", n, before, after), s, hypergeometric(n, before, after), x)
			}
			s = byTime(n, float64(before)/float64(before+after))
			for x := s.least; x <= s.most; x++ {
				check(fmt.Sprintf("%d by %d to %d", n, before, after), s, binomial(n, before, after), x)
			}
		}
	}
	for _, x := range []int64{0, 10, 180, 200, 230, 400} {
		check("400 of 3000 and 3000", byShare(400, 3000, 3000), hypergeometric(400, 3000, 3000), x)
		check("400 by 1 to 2", byTime(400, 1./3), binomial(400, 1, 2), x)
	}
	// Far out and of large numbers: finite, and fast.
	large := byShare(1_000_000, 3_000_000, 2_000_000)
	if p := large.pValue(600_000); math.Abs(p-1) > 0.01 {
		t.Errorf("in the middle: %g", p)
	}
	if p := large.pValue(1000); p != 0 {
		t.Errorf("far out: %g", p)
	}
}

func TestAdjust(t *testing.T) {
	// The example of Benjamini and Hochberg (1995): of 15, the first 4 are significant at 0.05.
	ps := []float64{0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	all := make([]*chance, len(ps))
	for i, p := range ps {
		all[i] = &chance{times: 1, p: p}
	}
	adjust(all)
	for _, c := range all {
		if c.significant() != (c.p <= 0.0095) || c.q < c.p {
			t.Errorf("p = %g: q = %g", c.p, c.q)
		}
	}
	// One that is there twice is corrected as two are.
	two, twice := []*chance{{times: 1, p: 0.01}, {times: 1, p: 0.01}, {times: 1, p: 0.04}}, []*chance{{times: 2, p: 0.01}, {times: 1, p: 0.04}}
	adjust(two)
	adjust(twice)
	if two[0].q != twice[0].q || two[1].q != twice[0].q || two[2].q != twice[1].q || twice[0].q != 0.015 {
		t.Errorf("%+v, %+v, of %+v, %+v, %+v", *twice[0], *twice[1], *two[0], *two[1], *two[2])
	}
}

// leaves makes one sample for each count, of functions that main calls.
func leaves(counts []int64) *profile.Profile {
	var samples []profile.Sample
	for i, n := range counts {
		if n > 0 {
			samples = append(samples, sampleOf(n, fmt.Sprintf("app:f%04d", i), fmt.Sprintf("app:caller%02d", i%50), "app:main"))
		}
	}
	return profileOf(samples...)
}

// draw takes n samples by weight, in bursts of the same function.
func draw(r *rand.Rand, weights []float64, n, burst int) []int64 {
	sums := make([]float64, len(weights))
	sum := 0.0
	for i, w := range weights {
		sum += w
		sums[i] = sum
	}
	counts := make([]int64, len(weights))
	for drawn := 0; drawn < n; drawn += burst {
		at := r.Float64() * sum
		low, high := 0, len(sums)-1
		for low < high {
			if middle := (low + high) / 2; sums[middle] < at {
				low = middle + 1
			} else {
				high = middle
			}
		}
		counts[low] += int64(min(burst, n-drawn))
	}
	return counts
}

func zipf(n int) []float64 {
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = 1 / float64(i+3)
	}
	return weights
}

// What is significant between two samples of the same distribution is a false discovery. In at
// most 5 % of such pairs there may be one at all; and where some functions did change, at most 5 % of the discoveries may be others.
func TestFalseDiscoveries(t *testing.T) {
	pairs, functions := 100, 300
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		pairs, functions = 400, 1000
	}
	r := rand.New(rand.NewPCG(5, 6))
	same := zipf(functions)
	changed := zipf(functions)
	for i := 0; i < functions; i += 10 {
		changed[i] *= 3
	}
	sum := func(weights []float64) (s float64) {
		for _, w := range weights {
			s += w
		}
		return s
	}
	grown := sum(changed) / sum(same)
	for _, test := range []struct {
		scale         Scale
		before, after int
		weights       []float64
		duration      float64 // of the side after, as a multiple
		null          bool
	}{
		{ByShare, 5000, 5000, same, 1, true},
		{ByShare, 400, 9000, same, 1, true},
		{ByTime, 3000, 9000, same, 3, true},
		{ByTime, 5000, int(5000 * grown), changed, 1, false}, // in time the others do not change
	} {
		pairsWith, discoveries, proportions, power := 0, 0, 0.0, 0
		for range pairs {
			a, b := leaves(draw(r, same, test.before, 1)), leaves(draw(r, test.weights, test.after, 1))
			b.Duration = time.Duration(float64(b.Duration) * test.duration)
			d, err := Diff(a, b, test.scale)
			if err != nil {
				t.Fatal(err)
			}
			found, false_ := 0, 0
			for _, c := range d.Functions {
				var i int
				if n, _ := fmt.Sscanf(c.Name, "f%d", &i); n == 1 && c.Self.Significant {
					found++
					if test.null || i%10 != 0 {
						false_++
					}
				}
			}
			discoveries += found
			if false_ > 0 {
				pairsWith++
			}
			if found > 0 {
				proportions += float64(false_) / float64(found)
			}
			power += found - false_
		}
		rate := proportions / float64(pairs)
		// Three standard deviations of a count of pairs.
		bound := FalseDiscoveryRate + 3*math.Sqrt(FalseDiscoveryRate*(1-FalseDiscoveryRate)/float64(pairs))
		t.Logf("by %s, %d to %d samples: %.3f of the discoveries are false, %d of %d pairs have one, %d true ones", test.scale, test.before, test.after, rate, pairsWith, pairs, power)
		if rate > bound {
			t.Errorf("by %s: %.3f of the discoveries are false, more than %.3f", test.scale, rate, bound)
		}
		if !test.null && power < pairs {
			t.Errorf("by %s: %d true discoveries in %d pairs", test.scale, power, pairs)
		}
	}
}

// A function of a tenth that takes 20 % more is found among a thousand others in 20,000 samples.
func TestPlantedChangeIsFound(t *testing.T) {
	const trials = 20
	r := rand.New(rand.NewPCG(7, 8))
	for _, scale := range []Scale{ByShare, ByTime} {
		found, first := 0, 0
		for range trials {
			before, after := zipf(1000), zipf(1000)
			sum := 0.0
			for _, w := range before {
				sum += w
			}
			const planted = 500
			before[planted] = 0.1 * sum
			after[planted] = 1.2 * before[planted]
			d, err := Diff(leaves(draw(r, before, 20000, 1)), leaves(draw(r, after, 20000, 1)), scale)
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range d.Functions {
				if c.Name == "f0500" && c.Self.Significant {
					found++
					if i == 0 {
						first++
					}
				}
			}
		}
		t.Logf("by %s: found in %d of %d, first in %d", scale, found, trials, first)
		if found < trials*9/10 {
			t.Errorf("by %s: found in %d of %d", scale, found, trials)
		}
	}
}

// What the documentation warns of: samples that come in bursts are not independent, and chance is underrated.
func TestBurstsAreUnderrated(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	with := 0
	for range 20 {
		d, err := Diff(leaves(draw(r, zipf(300), 10000, 20)), leaves(draw(r, zipf(300), 10000, 20)), ByShare)
		if err != nil {
			t.Fatal(err)
		}
		if d.Functions[0].Self.Significant {
			with++
		}
	}
	t.Logf("bursts of 20 samples: %d of 20 pairs of the same distribution have a significant difference", with)
	if with < 15 {
		t.Errorf("%d of 20: docs/diff.md says that it is most of them", with)
	}
}

func TestDiff(t *testing.T) {
	before := profileOf(sampleOf(100, "app:f", "app:main"), sampleOf(100, "app:g", "app:main"), sampleOf(1, "app:gone"), sampleOf(0, "app:never"))
	after := profileOf(sampleOf(300, "app:f", "app:main"), sampleOf(95, "app:g", "app:main"), sampleOf(1, "k:new", "app:main"), sampleOf(4, "app:gone"))
	after.Duration *= 2
	show := func(d *Difference) (lines []string) {
		for _, c := range d.Functions {
			mark := ""
			if c.Self.Significant {
				mark += "*"
			}
			if c.Total.Significant {
				mark += "+"
			}
			lines = append(lines, fmt.Sprintf("%s%s %.3f %.3f", c.Name, mark, c.Self.BeforePart, c.Self.AfterPart))
		}
		return lines
	}
	d, err := Diff(before, after, ByShare)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(show(d), ", "), "g*+ 0.498 0.237, f*+ 0.498 0.750, gone 0.005 0.010, new 0.000 0.003, main 0.000 0.000, never 0.000 0.000"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if d.Before.Samples != 201 || d.After.Samples != 400 || d.After.Duration != 20*time.Second {
		t.Errorf("%+v, %+v", d.Before, d.After)
	}
	// In the same time: 100 in 10 s, and 300 in 20 s. The values are 10 ns a sample.
	d, err = Diff(before, after, ByTime)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(show(d), ", "), "g*+ 100.000 47.500, f*+ 100.000 150.000, gone 1.000 2.000, new 0.000 0.500, main 0.000 0.000, never 0.000 0.000"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	// Twice the frequency makes twice the samples of the same thing.
	twice := profileOf(sampleOf(200, "app:f"), sampleOf(200, "app:g"))
	twice.Period = 5
	for i := range twice.Samples {
		twice.Samples[i].Value /= 2
	}
	if d, err = Diff(profileOf(sampleOf(100, "app:f"), sampleOf(100, "app:g")), twice, ByTime); err != nil || d.Functions[0].Self.P < 0.9 || d.Functions[0].Self.Change() != 0 {
		t.Errorf("%v: %+v", err, d.Functions)
	}
	// Folded text knows no modules: functions are the same by name.
	bare := profileOf(sampleOf(100, "app:f"), sampleOf(100, "k:sys", "app:g"))
	for i := range bare.Samples {
		bare.Samples[i].User.Locations[0].Mapping = nil
	}
	if d, err = Diff(profileOf(sampleOf(100, "app:f"), sampleOf(100, "k:sys", "app:g")), bare, ByShare); err != nil || len(d.Functions) != 3 || d.Functions[0].Self.Change() != 0 {
		t.Errorf("%v: %+v", err, d.Functions)
	}
	// Nothing on one side is no error, and nothing is significant.
	if d, err = Diff(profileOf(), after, ByShare); err != nil || len(d.Functions) != 5 || d.Functions[0].Self.Significant || d.Functions[0].Self.AfterPart != 0.75 {
		t.Errorf("%v: %+v", err, d)
	}

	other := profileOf()
	other.Type = profile.TypeCycles
	if _, err := Diff(before, other, ByShare); err == nil || !strings.Contains(err.Error(), "cpu/nanoseconds and cycles/count") {
		t.Errorf("%v", err)
	}
	if _, err := Diff(before, profileOf(sampleOf(-3, "app:f"), sampleOf(5, "app:g")), ByShare); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("%v", err)
	}
	before.Duration = 0
	if _, err := Diff(before, after, ByTime); err == nil || !strings.Contains(err.Error(), "by share") {
		t.Errorf("%v", err)
	}
}
