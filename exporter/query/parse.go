package query

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Parameter is a name of the language.
type Parameter struct {
	Name string
	Help string // what its value is, in a line
	set  func(q *Query, value string, now time.Time) error
	text func(q *Query) string // "" where it is not set
}

// Parameters are the names of the language, in the order in which String writes them.
var Parameters = []Parameter{
	{"from", "begin: RFC 3339, Unix seconds, now, or back from now such as -15m",
		func(q *Query, v string, now time.Time) (err error) { q.From, err = ParseTime(v, now); return },
		func(q *Query) string { return timeText(q.From) }},
	{"to", "end, as from",
		func(q *Query, v string, now time.Time) (err error) { q.To, err = ParseTime(v, now); return },
		func(q *Query) string { return timeText(q.To) }},
	{"type", "type of profile, such as cpu (the default) or cycles",
		func(q *Query, v string, _ time.Time) error { q.Type = v; return nil },
		func(q *Query) string { return q.Type }},
	{"filter", `conditions on labels, such as comm=~"redis.*",container_id!="" (` + strings.Join(Labels, ", ") + "; of profiles in memory also " + strings.Join(SpanLabels, ", ") + ")",
		func(q *Query, v string, _ time.Time) (err error) { q.Filter, err = ParseFilter(v); return },
		func(q *Query) string { return q.Filter.String() }},
	{"by", "label to group by, such as comm: it becomes the outermost frame",
		func(q *Query, v string, _ time.Time) error { q.By = v; return checkLabel(v) },
		func(q *Query) string { return q.By }},
	{"focus", "keep stacks with a function that matches this regular expression",
		func(q *Query, v string, _ time.Time) (err error) { q.Focus, err = compile(v); return },
		func(q *Query) string { return patternText(q.Focus) }},
	{"ignore", "drop stacks with a function that matches this regular expression",
		func(q *Query, v string, _ time.Time) (err error) { q.Ignore, err = compile(v); return },
		func(q *Query) string { return patternText(q.Ignore) }},
	{"hide", "leave functions that match this regular expression out of the stacks",
		func(q *Query, v string, _ time.Time) (err error) { q.Hide, err = compile(v); return },
		func(q *Query) string { return patternText(q.Hide) }},
	{"function", "the function whose callers and callees are asked for, by its whole name",
		func(q *Query, v string, _ time.Time) error { q.Function = v; return nil },
		func(q *Query) string { return q.Function }},
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func patternText(re *regexp.Regexp) string {
	if re == nil {
		return ""
	}
	return re.String()
}

// Set gives one of Parameters its value. now is what -15m counts from.
func (q *Query) Set(name, value string, now time.Time) error {
	i := slices.IndexFunc(Parameters, func(p Parameter) bool { return p.Name == name })
	switch {
	case i < 0:
		names := make([]string, len(Parameters))
		for i, p := range Parameters {
			names[i] = p.Name
		}
		return fmt.Errorf("there is no parameter %s: known are %s", Quote(name), strings.Join(names, ", "))
	case value == "":
		return fmt.Errorf("%s is empty: leave it out, or give it a value (%s)", name, Parameters[i].Help)
	}
	if err := Parameters[i].set(q, value, now); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Check says whether the query as a whole makes sense.
func (q *Query) Check() error {
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return fmt.Errorf("from %s is not before to %s", timeText(q.From), timeText(q.To))
	}
	return nil
}

// Parse reads a query; -15m counts from the time of the call. Its errors say where in the text they are, and what was expected.
func Parse(text string) (Query, error) {
	if len(text) > maxText {
		return Query{}, fmt.Errorf("the query has %d bytes: at most %d are taken", len(text), maxText)
	}
	var (
		q     Query
		now   = time.Now()
		s     = scanner{text: text}
		given []string
	)
	for s.spaces(); !s.end(); s.spaces() {
		start := s.at
		name := s.word()
		if name == "" || !s.take("=") {
			return Query{}, s.expected("a name and = such as from=-15m")
		}
		if slices.Contains(given, name) {
			s.at = start
			return Query{}, s.fail("%s is given twice", name)
		}
		given = append(given, name)
		value, err := s.parameterValue(name)
		if err != nil {
			return Query{}, err
		}
		if err := q.Set(name, value, now); err != nil {
			s.at = start
			return Query{}, s.fail("%w", err)
		}
	}
	return q, q.Check()
}

// ParseFilter reads conditions; none where the text is empty.
func ParseFilter(text string) (Filter, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the filter has %d bytes: at most %d are taken", len(text), maxText)
	}
	s := scanner{text: text}
	if s.spaces(); s.end() {
		return nil, nil
	}
	f, err := s.filter()
	if err != nil {
		return nil, err
	}
	if s.spaces(); !s.end() {
		return nil, s.expected("a comma and a further condition, or the end")
	}
	return f, nil
}

// scanner goes through a text.
type scanner struct {
	text string
	at   int
}

func (s *scanner) end() bool { return s.at == len(s.text) }

func (s *scanner) spaces() {
	for !s.end() && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
}

// word is a run of letters and _, as names and labels are.
func (s *scanner) word() string {
	start := s.at
	for !s.end() && (s.text[s.at] == '_' || 'a' <= s.text[s.at] && s.text[s.at] <= 'z' || 'A' <= s.text[s.at] && s.text[s.at] <= 'Z') {
		s.at++
	}
	return s.text[start:s.at]
}

func (s *scanner) take(token string) bool {
	if !strings.HasPrefix(s.text[s.at:], token) {
		return false
	}
	s.at += len(token)
	return true
}

// parameterValue reads what stands behind name=. A filter keeps its quotes: they are part of it.
func (s *scanner) parameterValue(name string) (string, error) {
	if name != "filter" {
		return s.value(" \t\r\n")
	}
	start := s.at
	if _, err := s.filter(); err != nil {
		return "", err
	}
	return s.text[start:s.at], nil
}

// filter reads conditions up to what cannot belong to one.
func (s *scanner) filter() (Filter, error) {
	var f Filter
	for {
		s.spaces()
		start := s.at
		label := s.word()
		if label == "" {
			return nil, s.expected("a label (" + labelNames() + ")")
		}
		if err := checkLabel(label); err != nil {
			s.at = start
			return nil, s.fail("%w", err)
		}
		s.spaces()
		op := slices.IndexFunc(ops, func(op Op) bool { return s.take(string(op)) })
		if op < 0 {
			return nil, s.expected("=, !=, =~ or !~")
		}
		s.spaces()
		valueAt := s.at
		value, err := s.value(", \t\r\n")
		if err != nil {
			return nil, err
		}
		c, err := NewCondition(label, ops[op], value)
		if err != nil {
			s.at = valueAt
			return nil, s.fail("%w", err)
		}
		if f = append(f, c); len(f) > maxConditions {
			return nil, s.fail("more than %d conditions", maxConditions)
		}
		before := s.at
		if s.spaces(); !s.take(",") {
			s.at = before
			return f, nil
		}
	}
}

// value reads "quoted", `raw`, or a run up to one of the bytes in stops.
func (s *scanner) value(stops string) (string, error) {
	switch {
	case s.take(`"`):
		return s.quoted()
	case s.take("`"):
		length := strings.IndexByte(s.text[s.at:], '`')
		if length < 0 {
			s.at = len(s.text)
			return "", s.expected("` at the end of the value")
		}
		s.at += length + 1
		return s.text[s.at-length-1 : s.at-1], nil
	}
	length := strings.IndexAny(s.text[s.at:], stops)
	if length < 0 {
		length = len(s.text) - s.at
	}
	value := s.text[s.at : s.at+length]
	if quote := strings.IndexAny(value, "\"`"); quote >= 0 {
		s.at += quote
		return "", s.fail("a quote in the middle of a value: put quotes around the whole of it")
	}
	if value == "" {
		return "", s.expected(`a value, "" for an empty one`)
	}
	s.at += length
	return value, nil
}

// quoted reads up to the closing quote. Bytes that are no text stay as they are, which strconv.Unquote would not do.
func (s *scanner) quoted() (string, error) {
	var value []byte
	for !s.end() {
		switch s.text[s.at] {
		case '"':
			s.at++
			return string(value), nil
		case '\\':
			r, wide, rest, err := strconv.UnquoteChar(s.text[s.at:], '"')
			if err != nil {
				return "", s.fail(`\ begins an escape such as \n, \", \\ or \xff: write \\ for itself, or put the value in %s`, "` `")
			}
			if wide {
				value = utf8.AppendRune(value, r)
			} else {
				value = append(value, byte(r))
			}
			s.at = len(s.text) - len(rest)
		default:
			value = append(value, s.text[s.at])
			s.at++
		}
	}
	return "", s.expected(`" at the end of the value`)
}

// Error says where a text is wrong.
type Error struct {
	Offset int // in bytes
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("at %d: %v", e.Offset+1, e.Err) }

// Unwrap is what is wrong there.
func (e *Error) Unwrap() error { return e.Err }

func (s *scanner) fail(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if inner := (*Error)(nil); errors.As(err, &inner) {
		return err // it knows better where
	}
	return &Error{s.at, err}
}

func (s *scanner) expected(what string) error {
	found := "the end"
	if !s.end() {
		found = Quote(s.text[s.at:])
	}
	return s.fail("expected %s, found %s", what, found)
}
