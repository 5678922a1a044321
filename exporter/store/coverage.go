package store

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// coverageKey is where the footer of a file of samples says how much of the time was sampled: while no agent ran, nothing was.
//
//	1764000000000:40000 1764000060000*59:60000      40 s of the first minute, and 60 of each of the 59 after it
//
// Times are in milliseconds since 1970: in resolution 10s of the interval's start, in 1h of the minute in which intervals began.
const coverageKey = "pilotlight.covered"

// coverage is how many milliseconds were sampled, by when they began.
type coverage map[int64]int64

func (c coverage) String() string {
	starts := slices.Sorted(maps.Keys(c))
	var words []string
	for len(starts) > 0 {
		first := starts[0]
		for n := 1; ; n++ {
			if n < len(starts) && c[starts[n]] == c[first] && starts[n] == first+int64(n)*time.Minute.Milliseconds() {
				continue
			}
			word := strconv.FormatInt(first, 10)
			if n > 1 {
				word += "*" + strconv.Itoa(n)
			}
			words = append(words, word+":"+strconv.FormatInt(c[first], 10))
			starts = starts[n:]
			break
		}
	}
	return strings.Join(words, " ")
}

// maxCovered bounds what one word of a file stands for.
const maxCovered = 2 * 24 * 60

// add adds what the footer of a file says. It is false where that says nothing.
func (c coverage) add(f *checkedFile) bool {
	text, ok := f.Lookup(coverageKey)
	for word := range strings.FieldsSeq(text) {
		at, millis, _ := strings.Cut(word, ":")
		at, times, several := strings.Cut(at, "*")
		start, errStart := strconv.ParseInt(at, 10, 64)
		length, errLength := strconv.ParseInt(millis, 10, 64)
		n, errTimes := 1, error(nil)
		if several {
			n, errTimes = strconv.Atoi(times)
		}
		if cmp.Or(errStart, errLength, errTimes) != nil || n < 1 || n > maxCovered {
			return false
		}
		for i := range int64(n) {
			c[start+i*time.Minute.Milliseconds()] += length
		}
	}
	return ok
}

// byMinute adds up what began in the same minute.
func (c coverage) byMinute() coverage {
	minutes := make(coverage)
	for at, n := range c {
		minutes[at-at%time.Minute.Milliseconds()] += n
	}
	return minutes
}
