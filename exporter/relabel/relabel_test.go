package relabel

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

func parse(text string) (Rules, error) {
	var file map[string]yaml.Node
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		return nil, err
	}
	node := file["relabel"]
	return Parse(&node)
}

func labels() *profile.Labels {
	return &profile.Labels{
		PID: 7, Comm: "python3", Thread: "worker", Exe: "/usr/bin/python3", Unit: "shop.service", Service: "shop", ContainerID: "c0",
		Resource: []profile.Attribute{{Key: "service.version", Value: "1.2"}, {Key: "team", Value: "a"}},
	}
}

func TestApply(t *testing.T) {
	for text, change := range map[string]func(l *profile.Labels) *profile.Labels{
		`[]`:                                     func(l *profile.Labels) *profile.Labels { return l },
		`[{action: drop, match: 'comm="bash"'}]`: func(l *profile.Labels) *profile.Labels { return l },
		`[{action: drop, match: 'comm="python3"'}]`:                                         func(*profile.Labels) *profile.Labels { return nil },
		`[{action: drop, match: 'comm=~"py.*",unit="other.service"'}]`:                      func(l *profile.Labels) *profile.Labels { return l },
		`[{action: keep, match: 'service="shop",pid="7"'}]`:                                 func(l *profile.Labels) *profile.Labels { return l },
		`[{action: keep, match: 'service!="shop"'}]`:                                        func(*profile.Labels) *profile.Labels { return nil },
		`[{action: rename, from: absent, to: service}]`:                                     func(l *profile.Labels) *profile.Labels { return l },
		`[{action: rename, from: team, to: team}]`:                                          func(l *profile.Labels) *profile.Labels { return l },
		`[{action: rename, from: team, to: service, match: 'comm="bash"'}]`:                 func(l *profile.Labels) *profile.Labels { return l },
		`[{action: set, to: thread, value: ""}]`:                                            func(l *profile.Labels) *profile.Labels { l.Thread = ""; return l },
		`[{action: set, to: team, value: ""}]`:                                              func(l *profile.Labels) *profile.Labels { l.Resource = l.Resource[:1]; return l },
		`[{action: set, to: service, value: x, match: 'unit="shop.service"'}]`:              func(l *profile.Labels) *profile.Labels { l.Service = "x"; return l },
		`[{action: set, to: service, value: x}, {action: drop, match: 'service="x"'}]`:      func(*profile.Labels) *profile.Labels { return nil },
		`[{action: drop, match: 'service="x"'}, {action: set, to: service, value: "shop"}]`: func(l *profile.Labels) *profile.Labels { return l },
		`[{action: rename, from: service, to: app}]`: func(l *profile.Labels) *profile.Labels {
			l.Service, l.Resource = "", append([]profile.Attribute{{Key: "app", Value: "shop"}}, l.Resource...)
			return l
		},
		`[{action: rename, from: team, to: service}]`: func(l *profile.Labels) *profile.Labels {
			l.Service, l.Resource = "a", l.Resource[:1]
			return l
		},
		`[{action: set, to: service.version, value: "2"}]`: func(l *profile.Labels) *profile.Labels {
			l.Resource[0].Value = "2"
			return l
		},
	} {
		rules, err := parse("relabel: " + text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		l := labels()
		got, want := rules.Apply(l), change(labels())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		if !reflect.DeepEqual(l, labels()) {
			t.Errorf("%s changed what it was given: %+v", text, l)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"relabel: 5":                                            "line 1: want a list of rules",
		"relabel: [drop]":                                       "line 1: want a rule",
		"relabel:\n- {action: drop}":                            "line 2: drop needs match",
		"relabel:\n- {action: keep, match: ''}":                 "line 2: keep needs match",
		"relabel:\n\n- {action: drop, match: 'x=1'}":            `line 3: match: at 1: there is no label "x"`,
		"relabel: [{action: drop, match: 'comm=a', to: b}]":     "drop takes match alone",
		"relabel: [{action: forget}]":                           `there is no action "forget"`,
		"relabel: [{action: rename, from: a}]":                  "to: want the name of a label",
		"relabel: [{action: rename, to: a}]":                    "from: want the name of a label",
		"relabel: [{action: rename, from: pid, to: a}]":         "from: pid cannot be changed",
		"relabel: [{action: set, to: trace_id, value: a}]":      "to: trace_id cannot be changed",
		"relabel: [{action: set, to: a}]":                       "set needs to and value",
		"relabel: [{action: set, to: a, value: b, from: c}]":    "set needs to and value",
		"relabel: [{action: rename, from: a, to: b, value: c}]": "rename takes no value",
		"relabel: [{action: set, to: a, value: [b]}]":           "cannot unmarshal",
		"relabel: [{action: drop, regex: a}]":                   `a rule has no "regex"`,
		"relabel: [" + strings.Repeat("{}, ", maxRules+1) + "]": "more than 256 rules",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v, want %q", text, err, want)
		}
	}
}
