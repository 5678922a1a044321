package main

import (
	"errors"
	"slices"
	"strings"
)

// goLabels chooses the labels of Go programs, beside the ids of the span, that samples have: all, none, or the keys that are named.
type goLabels struct {
	none bool
	keys []string // nil: all
}

func (g *goLabels) String() string {
	switch {
	case g.none:
		return "none"
	case g.keys == nil:
		return "all"
	}
	return strings.Join(g.keys, ",")
}

func (*goLabels) Type() string { return "KEYS" }

func (g *goLabels) Set(text string) error {
	switch text {
	case "all":
		*g = goLabels{}
		return nil
	case "none":
		*g = goLabels{none: true}
		return nil
	}
	keys := strings.Split(text, ",")
	for i, key := range keys {
		if keys[i] = strings.TrimSpace(key); keys[i] == "" {
			return errors.New("want all, none, or keys with commas between them, such as http.route,http.method")
		}
	}
	*g = goLabels{keys: keys}
	return nil
}

// keep is nil where all are kept.
func (g *goLabels) keep() func(key string) bool {
	if !g.none && g.keys == nil {
		return nil
	}
	return func(key string) bool { return slices.Contains(g.keys, key) }
}
