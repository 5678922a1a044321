package main

import (
	"context"
	"testing"
	"time"
)

// A tool that ends early is an error, at once and not a wait for ever.
func TestToolEndsEarly(t *testing.T) {
	failing := tool{command: []string{"false"}, program: "none"}
	if err := measure(context.Background(), failing, time.Hour, new(result)); err == nil {
		t.Error("it was measured")
	}
	if _, err := countLines(context.Background(), failing, time.Hour); err == nil {
		t.Error("its cache lines were counted")
	}
}
