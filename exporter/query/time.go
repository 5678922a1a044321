package query

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Years that times may be in: their nanoseconds fit into 64 bits.
const minYear, maxYear = 1970, 2200

// ParseTime reads RFC 3339, Unix seconds, now, or a span back from now such as -15m, -1h30m or -7d.
func ParseTime(text string, now time.Time) (time.Time, error) {
	t, err := parseTime(text, now)
	if err == nil && (t.Before(time.Unix(0, 0)) || t.Year() > maxYear) {
		err = fmt.Errorf("it is not between %d and %d", minYear, maxYear)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is no time: %w", Quote(text), err)
	}
	return t.UTC(), nil
}

func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if back, ok := strings.CutPrefix(text, "-"); ok {
		span, err := parseSpan(back)
		return now.Add(-span), err
	}
	if strings.Trim(text, "0123456789.") == "" {
		if t, ok := parseUnix(text); ok {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("give RFC 3339 (2026-11-24T17:05:10Z), Unix seconds, now, or a span back from now (-15m, -7d)")
}

// parseUnix reads seconds with decimals: as digits, because a binary fraction is not the decimal one, and would move what lies at an edge.
func parseUnix(text string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseUint("0"+whole, 10, 64)
	if err != nil || seconds >= 1<<33 || whole == "" && fraction == "" {
		return time.Time{}, false
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, false // a second point
	}
	return time.Unix(int64(seconds), int64(nanos)), true
}

// parseSpan reads a Go duration, which may begin with days.
func parseSpan(text string) (time.Duration, error) {
	var days time.Duration
	rest := text
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, errors.New("the days are not a number: give a span such as -7d or -1d12h")
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	span, err := time.ParseDuration(rest)
	if err != nil || span < 0 || strings.HasPrefix(rest, "+") || span > math.MaxInt64-days {
		return 0, errors.New("give a span such as -15m, -1h30m or -7d")
	}
	return days + span, nil
}
