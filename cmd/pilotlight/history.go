package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pilotlight/pilotlight/exporter/store"
)

// historyFlags say what is kept on disk.
type historyFlags struct {
	off     bool
	bytes   byteSize
	age     time.Duration
	minFree byteSize
}

func (f *historyFlags) add(flags *pflag.FlagSet) {
	f.bytes, f.minFree = store.DefaultMaxBytes, store.DefaultMinFree
	flags.BoolVar(&f.off, "no-history", false, "keep no profiles in the data directory")
	flags.Var(&f.bytes, "history-bytes", "the history takes this `SIZE` at most, such as 500MB or 2GiB; the oldest goes first")
	flags.DurationVar(&f.age, "history-age", store.DefaultMaxAge, "the history goes this far back at most, such as 48h")
	flags.Var(&f.minFree, "history-min-free", "the history leaves this `SIZE` of its file system free: it gives up what is older than an hour, and then waits")
}

func (f *historyFlags) check() error {
	switch {
	case f.bytes <= 0:
		return errors.New("history-bytes 0: want a size above 0, or --no-history")
	case f.age <= 0:
		return fmt.Errorf("history-age %s: want a positive time, or --no-history", f.age)
	}
	return nil
}

// open opens the history in a data directory that is locked.
func (f *historyFlags) open(dir string, log *slog.Logger) (*store.Store, error) {
	minFree := int64(f.minFree)
	if minFree == 0 {
		minFree = -1 // the Store takes 0 for its default
	}
	return store.Open(store.Options{Dir: dir, MaxBytes: int64(f.bytes), MaxAge: f.age, MinFree: minFree, Log: log})
}

// byteSize is a flag of bytes, with a unit or without.
type byteSize int64

var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// Set understands 1073741824, 500MB and 2GiB.
func (b *byteSize) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return errors.New("want bytes, such as 500MB or 2GiB")
	}
	*b = byteSize(n * unit)
	return nil
}

func (b *byteSize) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if n := int64(*b); n > 0 && n%byteUnits[u].bytes == 0 {
			return strconv.FormatInt(n/byteUnits[u].bytes, 10) + byteUnits[u].name
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type is what --help calls a value that has no name.
func (b *byteSize) Type() string { return "size" }
