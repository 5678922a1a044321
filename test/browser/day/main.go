// Command day writes a day of the history of a busy host that is made up, up to now, into the directory that it is given.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

func main() {
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write writes each past hour as one long interval with the stacks that the host shows in it, which is what files of resolution 1h hold of it, and
// of the last quarter of an hour what an agent writes.
func write(dir string) error {
	s, err := store.Open(store.Options{Dir: dir, MinFree: -1, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	host := busyhost.New(busyhost.Options{CPUs: 4, SharedCallersPercent: 90})
	end := time.Now().Truncate(10 * time.Second)
	recent := end.Add(-15 * time.Minute)
	for when := end.Add(-24 * time.Hour).Truncate(time.Hour); when.Before(recent); when = when.Add(time.Hour) {
		s.Export(host.Interval(when, min(time.Hour, recent.Sub(when))))
		host.NextHour()
	}
	for when := recent; when.Before(end); when = when.Add(10 * time.Second) {
		s.Export(host.Interval(when, 10*time.Second))
	}
	return s.Close()
}
