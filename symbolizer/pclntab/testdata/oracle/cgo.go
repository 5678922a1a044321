//go:build withcgo

package main

// static int triple(int x) { return 3 * x; }
import "C"

func init() { _ = C.triple(2) }
