package main

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pilotlight/pilotlight/exporter/metrics"
)

// functionGroups are what the user changes of the groups of functions: NAME=REGEX adds a group or replaces one, NAME= takes one away.
type functionGroups struct {
	of    map[string]string
	given map[string]bool // by flags, which go before the file
}

func newFunctionGroups() functionGroups {
	return functionGroups{make(map[string]string), make(map[string]bool)}
}

// Set takes one NAME=REGEX.
func (g functionGroups) Set(text string) error {
	name, pattern, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("want NAME=REGEX")
	}
	g.of[name], g.given[name] = pattern, true
	return metrics.CheckGroups(map[string]string{name: pattern})
}

// read reads a mapping of names to regular expressions, of the file.
func (g functionGroups) read(node *yaml.Node) error {
	of := make(map[string]string)
	if err := node.Decode(&of); err != nil {
		return fmt.Errorf("line %d: want a mapping of names to regular expressions", node.Line)
	}
	for name, pattern := range of {
		if !g.given[name] {
			g.of[name] = pattern
		}
	}
	return metrics.CheckGroups(of)
}

func (g functionGroups) String() string { return "" }

// Type names the kind of value.
func (g functionGroups) Type() string { return "NAME=REGEX" }
