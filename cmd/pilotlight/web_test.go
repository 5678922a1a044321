package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// What diff --format pprof wrote is no profile to be shown: counts below zero were shown as 1.8e19 samples.
func TestWebRefusesDifferences(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.pb.gz")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	before := &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{{Labels: new(profile.Labels), Count: 3, Value: 30}}}
	after := &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{{Labels: new(profile.Labels), Count: 5, Value: 50}}}
	if err := pprof.WriteDiff(out, before, after, 1); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	// An address that cannot be listened on: where the file is taken, the command ends all the same.
	err = show(&webFlags{listen: "127.0.0.1:1000000"}, []string{path})
	if err == nil || !strings.Contains(err.Error(), path+": the profile has negative samples") {
		t.Errorf("%v", err)
	}
}
