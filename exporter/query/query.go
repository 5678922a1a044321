// Package query is the language in which profiles of the past are asked for,
// the same on the command line, in URLs and in the API:
//
//	from=-15m to=now type=cpu filter=comm=~"redis.*",container_id!="" by=comm focus=^malloc$
package query

import (
	"regexp"
	"time"
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
