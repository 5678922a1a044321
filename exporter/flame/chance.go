package flame

import (
	"cmp"
	"math"
	"slices"
)

// How likely a difference is by chance.
//
// A function has x of the samples before and y of those after, n = x + y. If it takes the same part of both, each of
// the n samples falls on the side before or after like any other one: given n, x is distributed
//
//	by share  hypergeometrically: n drawn out of all samples, before + after
//	by time   binomially: n trials with probability e(before) / (e(before) + e(after)), where e is duration / period
//
// These are Fisher's exact test of two shares and the exact conditional test of two Poisson rates: right for any counts, small ones
// too. The p-value is twice the tail that x lies in, at most 1.

// split is the distribution of x: it goes from least to most, at most n.
type split struct {
	least, most int64
	mean        float64
	logP        func(x int64) float64
	step        func(x int64) float64 // P(x+1) / P(x)
}

// byShare splits n samples that were drawn out of before + after.
func byShare(n, before, after int64) split {
	all := logChoose(before+after, n)
	return split{
		least: max(0, n-after), most: min(n, before),
		mean: float64(n) * float64(before) / float64(before+after),
		logP: func(x int64) float64 { return logChoose(before, x) + logChoose(after, n-x) - all },
		step: func(x int64) float64 {
			return float64(before-x) / float64(x+1) * float64(n-x) / float64(after-n+x+1)
		},
	}
}

// byTime splits n samples, each with probability p.
func byTime(n int64, p float64) split {
	return split{
		most: n, mean: float64(n) * p,
		logP: func(x int64) float64 {
			return logChoose(n, x) + float64(x)*math.Log(p) + float64(n-x)*math.Log1p(-p)
		},
		step: func(x int64) float64 { return float64(n-x) / float64(x+1) * p / (1 - p) },
	}
}

// pValue is how likely a split at least as uneven as x is.
func (s *split) pValue(x int64) float64 {
	// The terms fall from the mean outwards, so the tail ends where they no longer count.
	const negligible = 1e-17
	sum, term := 1.0, 1.0
	if float64(x) <= s.mean {
		for k := x; k > s.least && term > negligible*sum; k-- {
			term /= s.step(k - 1)
			sum += term
		}
	} else {
		for k := x; k < s.most && term > negligible*sum; k++ {
			term *= s.step(k)
			sum += term
		}
	}
	return min(1, 2*math.Exp(s.logP(x)+math.Log(sum)))
}

// least p-value that any split of the n samples could have.
func (s *split) leastPValue() float64 { return min(s.pValue(s.least), s.pValue(s.most)) }

func logChoose(n, k int64) float64 {
	return logFactorial(n) - logFactorial(k) - logFactorial(n-k)
}

func logFactorial(n int64) float64 {
	l, _ := math.Lgamma(float64(n) + 1)
	return l
}

// adjust corrects p-values for there being many, by Benjamini and Hochberg: q of the i-th smallest of m is
//
//	min over j >= i of p(j) * m / j
//
// Of the differences with q <= 0.05, 5 % at most are expected to be there by chance. This holds for tests
// that are independent or depend on one another positively, as a function and its callers do.
func adjust(all []*chance) {
	slices.SortFunc(all, func(a, b *chance) int { return cmp.Compare(a.p, b.p) })
	m := 0
	for _, c := range all {
		m += c.times
	}
	q, j := 1.0, m
	for _, c := range slices.Backward(all) {
		q = min(q, c.p*float64(m)/float64(j))
		c.q = q
		j -= c.times
	}
}
