package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// sections are settings of the file that are more than a flag can say, by their names.
type sections map[string]func(*yaml.Node) error

// settings fill the flags that the command line left open: from the environment, and then from the YAML file that --config names.
type settings struct {
	flags   *pflag.FlagSet
	environ []string
	// more understands more of the environment; nil: there is no more.
	more func(*pflag.FlagSet, []string) error
	// sections are what the file may have beside flags.
	sections sections
	// others are the names of settings that the file may have for another command; nil: none.
	others func(name string) bool
}

func (s settings) apply() error {
	if err := applyEnvironment(s.flags, s.environ); err != nil {
		return err
	}
	if s.more != nil {
		if err := s.more(s.flags, s.environ); err != nil {
			return err
		}
	}
	path := s.flags.Lookup("config").Value.String()
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return failure{fmt.Errorf("configuration: %w", err)}
	}
	if err := s.applyFile(text); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

const environmentPrefix = "PILOTLIGHT_"

func applyEnvironment(flags *pflag.FlagSet, environ []string) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := environmentPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		i := slices.IndexFunc(environ, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if f.Changed || i < 0 {
			return
		}
		if err := flags.Set(f.Name, environ[i][len(name)+1:]); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

func (s settings) applyFile(text []byte) error {
	var file map[string]yaml.Node
	if err := yaml.Unmarshal(text, &file); err != nil {
		return err
	}
	for name, node := range file {
		if section := s.sections[name]; section != nil {
			if err := section(&node); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		f := s.flags.Lookup(name)
		if f == nil && s.others != nil && s.others(name) {
			continue
		}
		if f == nil || name == "config" || name == "help" {
			return fmt.Errorf("line %d: there is no setting %q", node.Line, name)
		}
		if f.Changed {
			continue
		}
		value, err := scalar(&node)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", node.Line, name, err)
		}
		if err := s.flags.Set(name, value); err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
	}
	return nil
}

// scalar is a value as a flag takes it; lists are joined by commas.
func scalar(node *yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		return node.Value, nil
	case yaml.SequenceNode:
		var values []string
		for _, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return "", errors.New("want a list of plain values")
			}
			values = append(values, n.Value)
		}
		return strings.Join(values, ","), nil
	}
	return "", errors.New("want a plain value or a list")
}
