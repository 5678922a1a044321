// Package relabel drops samples and changes their labels by rules, as Prometheus does with targets, in a smaller form:
//
//   - {action: drop, match: 'comm="bash"'}
//   - {action: keep, match: 'service=~"shop-.*",container_id!=""'}
//   - {action: rename, from: service, to: app}
//   - {action: set, to: deployment.environment.name, value: test, match: 'unit="shop-test.service"'}
//
// Rules are applied one after the other, each to what those before it made. Conditions are those of package query. The package does no I/O.
package relabel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Action is what a rule does.
type Action string

// The actions.
const (
	Drop   Action = "drop"   // leaves out samples that match
	Keep   Action = "keep"   // leaves out those that do not
	Rename Action = "rename" // gives a label the name To in place of From, where it has a value
	Set    Action = "set"    // gives the label To a value; "" removes it
)

// Rule is one of them. Rename and Set are for samples that match; those without a Match are for all.
type Rule struct {
	Action   Action
	Match    query.Filter
	From, To string
	Value    string
}

// Rules are applied in order. They are not changed once they are made, and safe for concurrent use.
type Rules []Rule

const (
	maxRules = 256
	maxName  = 128
	maxValue = 1024
)

// document is a rule as it stands in a file.
type document struct {
	Action Action  `yaml:"action"`
	Match  *string `yaml:"match"`
	From   string  `yaml:"from"`
	To     string  `yaml:"to"`
	Value  *string `yaml:"value"`
}

// Parse reads a list of rules. Its errors say in which line what is wrong.
func Parse(node *yaml.Node) (Rules, error) {
	if node.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: want a list of rules, such as - {action: drop, match: 'comm=\"bash\"'}", node.Line)
	}
	if len(node.Content) > maxRules {
		return nil, fmt.Errorf("line %d: more than %d rules", node.Line, maxRules)
	}
	var rules Rules
	for _, n := range node.Content {
		rule, err := parseRule(n)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n.Line, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func parseRule(n *yaml.Node) (Rule, error) {
	var d document
	if n.Kind != yaml.MappingNode {
		return Rule{}, errors.New("want a rule, such as {action: drop, match: 'comm=\"bash\"'}")
	}
	for i := 0; i < len(n.Content); i += 2 {
		if name := n.Content[i].Value; !slices.Contains([]string{"action", "match", "from", "to", "value"}, name) {
			return Rule{}, fmt.Errorf("a rule has no %s: known are action, match, from, to and value", query.Quote(name))
		}
	}
	if err := n.Decode(&d); err != nil {
		return Rule{}, err
	}
	rule := Rule{Action: d.Action, From: d.From, To: d.To}
	if d.Match != nil {
		var err error
		if rule.Match, err = query.ParseFilter(*d.Match); err != nil {
			return Rule{}, fmt.Errorf("match: %w", err)
		}
	}
	if d.Value != nil {
		rule.Value = *d.Value
	}
	return rule, rule.check(d.Value != nil)
}

// check says whether a rule has all that its action needs, and nothing else.
func (r *Rule) check(hasValue bool) error {
	switch r.Action {
	case Drop, Keep:
		if len(r.Match) == 0 {
			return fmt.Errorf("%s needs match", r.Action)
		}
		if r.From != "" || r.To != "" || hasValue {
			return fmt.Errorf("%s takes match alone", r.Action)
		}
		return nil
	case Rename:
		if hasValue {
			return errors.New("rename takes no value: set does")
		}
		if err := checkName("from", r.From); err != nil {
			return err
		}
	case Set:
		if r.From != "" || !hasValue {
			return errors.New("set needs to and value, and takes no from")
		}
		if len(r.Value) > maxValue || !utf8.ValidString(r.Value) {
			return fmt.Errorf("value: want UTF-8 of %d bytes at most", maxValue)
		}
	default:
		return fmt.Errorf("there is no action %s: known are drop, keep, rename and set", query.Quote(string(r.Action)))
	}
	return checkName("to", r.To)
}

// checkName refuses what is no label that can be changed.
func checkName(which, name string) error {
	fixed := []string{pprof.LabelPID, pprof.LabelTID, pprof.LabelTraceID, pprof.LabelSpanID}
	switch {
	case name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n"):
		return fmt.Errorf("%s: want the name of a label, such as service, or of an attribute of the resource, such as service.version", which)
	case slices.Contains(fixed, name):
		return fmt.Errorf("%s: %s cannot be changed", which, name)
	}
	return nil
}

// Apply gives the labels that samples with those of l are to have: l itself where nothing changes, nil where the samples are dropped. l is not changed.
func (rules Rules) Apply(l *profile.Labels) *profile.Labels {
	out := l
	for i := range rules {
		r := &rules[i]
		matches := r.Match.Matches(out)
		switch {
		case r.Action == Keep && !matches, r.Action == Drop && matches:
			return nil
		case !matches || r.Action == Keep || r.Action == Drop:
			continue
		}
		value := r.Value
		if r.Action == Rename {
			if value = get(out, r.From); value == "" || r.From == r.To {
				continue
			}
		}
		if out == l {
			changed := *l
			out = &changed
		}
		if r.Action == Rename {
			set(out, r.From, "")
		}
		set(out, r.To, value)
	}
	return out
}

// field is the label of a name; nil where it is an attribute of the resource.
func field(l *profile.Labels, name string) *string {
	switch name {
	case pprof.LabelComm:
		return &l.Comm
	case pprof.LabelThread:
		return &l.Thread
	case pprof.LabelExe:
		return &l.Exe
	case pprof.LabelCgroup:
		return &l.Cgroup
	case pprof.LabelContainerID:
		return &l.ContainerID
	case pprof.LabelPodUID:
		return &l.PodUID
	case pprof.LabelUnit:
		return &l.Unit
	case pprof.LabelService:
		return &l.Service
	}
	return nil
}

func get(l *profile.Labels, name string) string {
	if name == pprof.LabelService {
		return l.ServiceName()
	}
	if f := field(l, name); f != nil {
		return *f
	}
	for _, a := range l.Resource {
		if a.Key == name {
			return a.Value
		}
	}
	return ""
}

// set gives a label a value. The attributes are shared with others, and copied.
func set(l *profile.Labels, name, value string) {
	if f := field(l, name); f != nil {
		*f = value
		return
	}
	i, found := slices.BinarySearchFunc(l.Resource, name, func(a profile.Attribute, name string) int { return strings.Compare(a.Key, name) })
	l.Resource = slices.Clone(l.Resource)
	if found {
		l.Resource = slices.Delete(l.Resource, i, i+1)
	}
	if value != "" {
		l.Resource = slices.Insert(l.Resource, i, profile.Attribute{Key: name, Value: value})
	}
}
