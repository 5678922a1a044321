// Package query is the language in which profiles of the past are asked for,
// the same on the command line, in URLs and in the API:
//
//	from=-15m to=now type=cpu filter=comm=~"redis.*",container_id!="" by=comm focus=^malloc$
//
// A text is a list of name=value, separated by spaces. A value with a space in it is quoted: "such as \"this\"", or `such
// as this`, where nothing is an escape. In quotes every byte can be told, as \xff where it is not text. URLs and flags
// give each name by itself, and its value as it is.
//
//	query     = { name "=" value }
//	filter    = condition { "," condition }
//	condition = label ( "=" | "!=" | "=~" | "!~" ) value
//
// Patterns are RE2. Those of conditions match the whole value, those of functions (focus, ignore, hide) any part of the name.
package query

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Query says which samples are meant, and what is shown of their stacks. The
// zero value means all samples of all time.
type Query struct {
	// From and To bound the time: a row is in where its span begins at From or later, and before To. Zero: no bound.
	From, To time.Time
	// Type of profile, such as "cpu"; "": cpu.
	Type string
	// Filter keeps the samples whose labels match it.
	Filter Filter
	// By is the label that samples are grouped by: it becomes the outermost frame. "": not grouped.
	By string
	// Focus keeps stacks with a function that matches, Ignore drops those, Hide leaves such functions out of the stacks. nil: all.
	Focus, Ignore, Hide *regexp.Regexp
	// Function is the one whose callers and callees are asked for, by its name as it is shown. "": none.
	Function string
}

// Filter is what a list of conditions means: all of them. nil lets everything pass.
type Filter []Condition

// Condition compares a label, such as comm, with a value. A label that a sample does not have is "".
type Condition struct {
	Label string
	Op    Op
	Value string
	match *regexp.Regexp // for Match and NotMatch: of the whole value
}

// Op is how a condition compares.
type Op string

// The comparisons.
const (
	Equal    Op = "="
	NotEqual Op = "!="
	Match    Op = "=~"
	NotMatch Op = "!~"
)

// ops in the order in which they are looked for: "=~" is not "=" and a "~".
var ops = []Op{Match, NotMatch, NotEqual, Equal}

// Bounds of what is taken.
const (
	maxText       = 4 << 20 // bytes; names of functions are of any length
	maxConditions = 64
	maxPattern    = 1000 // bytes: a pattern can cost a thousand times its length
)

// Labels are those that conditions and By can name, in the words of the pprof profiles.
var Labels = []string{"pid", "tid", "comm", "thread", "exe", "cgroup", "container_id", "service", "pod_uid", "unit"}

// SpanLabels can be named beside Labels where profiles are in memory. The history does not keep them; see Kept.
var SpanLabels = []string{"trace_id", "span_id"}

// ErrNotKept says that the history does not keep what is asked for.
var ErrNotKept = errors.New("the history does not keep which span a sample was of")

// Kept says whether the history can answer: with ErrNotKept where a condition or By is about spans.
func (q *Query) Kept() error {
	names := []string{q.By}
	for _, c := range q.Filter {
		names = append(names, c.Label)
	}
	for _, name := range names {
		if slices.Contains(SpanLabels, name) {
			return fmt.Errorf("%s: %w: ask for a profile that is collected now (/debug/pprof/profile?seconds=N&filter=...) or for the last minute (live=true)", name, ErrNotKept)
		}
	}
	return nil
}

// Label is the value of one of Labels or SpanLabels as text; "" where the sample does not have it.
func Label(l *profile.Labels, name string) string {
	switch name {
	case "pid":
		return number(l.PID)
	case "tid":
		return number(l.TID)
	case "comm":
		return l.Comm
	case "thread":
		return l.Thread
	case "exe":
		return l.Exe
	case "cgroup":
		return l.Cgroup
	case "container_id":
		return l.ContainerID
	case "service":
		return l.ServiceName()
	case "pod_uid":
		return l.PodUID
	case "unit":
		return l.Unit
	case "trace_id":
		return l.TraceID
	case "span_id":
		return l.SpanID
	}
	return ""
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// Matches says whether labels fulfil every condition.
func (f Filter) Matches(l *profile.Labels) bool {
	for i := range f {
		if !f[i].Matches(Label(l, f[i].Label)) {
			return false
		}
	}
	return true
}

// Matches says whether a value of the condition's label fulfils it.
func (c *Condition) Matches(value string) bool {
	switch c.Op {
	case Equal:
		return value == c.Value
	case NotEqual:
		return value != c.Value
	case Match:
		return c.match.MatchString(value)
	default:
		return !c.match.MatchString(value)
	}
}

// NewCondition checks the label, and compiles the pattern of Match and NotMatch.
func NewCondition(label string, op Op, value string) (Condition, error) {
	c := Condition{Label: label, Op: op, Value: value}
	if err := checkLabel(label); err != nil {
		return Condition{}, err
	}
	switch op {
	case Equal, NotEqual:
		_, err := strconv.ParseUint(value, 10, 31)
		if (label == "pid" || label == "tid") && value != "" && (err != nil || value[0] == '0') {
			return Condition{}, fmt.Errorf("%s%s%s: %[1]s is a number, or \"\" where there is none", label, op, Quote(value))
		}
	case Match, NotMatch:
		if _, err := compile(value); err != nil {
			return Condition{}, err
		}
		// What was parsed is put between the anchors, and not the text: it may end in the middle of a quotation (\Q).
		parsed, err := syntax.Parse(value, syntax.Perl|syntax.DotNL)
		if err == nil {
			c.match, err = regexp.Compile(`\A(?:` + parsed.String() + `)\z`)
		}
		if err != nil {
			return Condition{}, fmt.Errorf("%s is not a regular expression (RE2): %s", Quote(value), reason(err))
		}
	default:
		return Condition{}, fmt.Errorf("there is no comparison %s: known are =, !=, =~ and !~", Quote(string(op)))
	}
	return c, nil
}

func labelNames() string { return strings.Join(slices.Concat(Labels, SpanLabels), ", ") }

func checkLabel(name string) error {
	if slices.Contains(Labels, name) || slices.Contains(SpanLabels, name) {
		return nil
	}
	return fmt.Errorf("there is no label %s: known are %s", Quote(name), labelNames())
}

func compile(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("the pattern has %d bytes: at most %d are taken", len(pattern), maxPattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s is not a regular expression (RE2): %s", Quote(pattern), reason(err))
	}
	return re, nil
}

// reason is what regexp says of a pattern, without the pattern.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	kind, _, _ := strings.Cut(text, ": `")
	return kind
}

// Quote makes what somebody sent fit for a line of text, and short.
func Quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// String is the query as Parse reads it, with absolute times.
func (q *Query) String() string {
	var words []string
	for _, p := range Parameters {
		if value := p.text(q); value != "" {
			if p.Name != "filter" && strings.ContainsFunc(value, needsQuotes) {
				value = strconv.Quote(value)
			}
			words = append(words, p.Name+"="+value)
		}
	}
	return strings.Join(words, " ")
}

// needsQuotes: everything but the visible characters of ASCII that are no quotes.
func needsQuotes(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '`' }

// String is the filter as ParseFilter reads it.
func (f Filter) String() string {
	conditions := make([]string, len(f))
	for i, c := range f {
		conditions[i] = c.Label + string(c.Op) + strconv.Quote(c.Value)
	}
	return strings.Join(conditions, ",")
}
