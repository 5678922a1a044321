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

// applySettings fills the flags that the command line left open from the
// environment, then from what more understands of it, then from the YAML file that --config names.
// Settings of the file that only others have are passed over.
func applySettings(flags, others *pflag.FlagSet, environ []string, more ...func(*pflag.FlagSet, []string) error) error {
	for _, apply := range append([]func(*pflag.FlagSet, []string) error{applyEnvironment}, more...) {
		if err := apply(flags, environ); err != nil {
			return err
		}
	}
	path := flags.Lookup("config").Value.String()
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return failure{fmt.Errorf("configuration: %w", err)}
	}
	if err := applyFile(flags, others, text); err != nil {
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

func applyFile(flags, others *pflag.FlagSet, text []byte) error {
	var settings map[string]yaml.Node
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return err
	}
	for name, node := range settings {
		f := flags.Lookup(name)
		if f == nil && others != nil && others.Lookup(name) != nil {
			continue
		}
		if f == nil || name == "config" || name == "help" {
			return fmt.Errorf("line %d: there is no setting %q", node.Line, name)
		}
		if f.Changed {
			continue
		}
		if list, ok := f.Value.(nodeSetter); ok {
			if err := list.SetNode(&node); err != nil {
				return fmt.Errorf("line %d: %s: %w", node.Line, name, err)
			}
			continue
		}
		value, err := scalar(&node)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", node.Line, name, err)
		}
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
	}
	return nil
}

// nodeSetter is a setting that is more than a flag can hold.
type nodeSetter interface{ SetNode(*yaml.Node) error }

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
