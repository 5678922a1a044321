package main

import (
	"fmt"
	"os"

	"github.com/pilotlight/pilotlight/profiler"
	"github.com/pilotlight/pilotlight/profiler/doctor"
)

// sayLosses says what the profiler goes without on this machine, a line each.
func sayLosses(p *profiler.Profiler) {
	for _, c := range doctor.Losses(p.KernelNames()) {
		sayLoss(c.Line())
	}
}

func sayLoss(line string) { fmt.Fprintf(os.Stderr, "pilotlight: lost: %s\n", doctor.Printable(line)) }
