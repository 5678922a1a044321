package speedscope

import (
	"bytes"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// The stage browser holds such files against the published schema, and opens them in speedscope itself.
func TestWrite(t *testing.T) {
	function := func(name, file string, line int) profile.Line {
		return profile.Line{Function: &profile.Function{Name: name, File: file, StartLine: line}}
	}
	user := &profile.Stack{Truncated: "unmapped_pc", Locations: []*profile.Location{
		{Lines: []profile.Line{function("in", "", 0), function("_ZN3foo3barEv", "foo.cc", 12)}}, {Lines: []profile.Line{function("</script>\xff", "", 0)}},
		{Kind: pprof.KindLabel, Lines: []profile.Line{function("_Z3foov", "", 0)}},
	}}
	kernel := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameKernel, Lines: []profile.Line{function("in", "", 0)}}}}
	var out bytes.Buffer
	p := &profile.Profile{Type: profile.TypeCPU, Start: time.Unix(1e9, 0), Samples: []profile.Sample{
		{User: user, Count: 2, Value: 20}, {Kernel: kernel, User: user, Count: 1, Value: 9}, {Count: 1, Value: 1},
	}}
	if err := Write(&out, p); err != nil {
		t.Fatal(err)
	}
	want := `{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"pilotlight","name":"cpu 2001-09-09T01:46:40Z",` +
		`"shared":{"frames":[{"name":"in"},{"name":"foo::bar","file":"foo.cc","line":12},{"name":"\u003c/script\u003e�"},{"name":"_Z3foov"},{"name":"[truncated: unmapped pc]"}]},` +
		`"profiles":[{"type":"sampled","name":"cpu 2001-09-09T01:46:40Z","unit":"nanoseconds","startValue":0,"endValue":30,` +
		`"samples":[[4,3,2,1,0],[4,3,2,1,0,0],[]],"weights":[20,9,1]}]}` + "\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

// What is written takes no memory: as numbers or text of a frame each, it would be 20 MB here.
func TestWriteIsFrugal(t *testing.T) {
	l := &profile.Location{Lines: []profile.Line{{Function: &profile.Function{Name: "_ZN3foo3barEv"}}}}
	deep := &profile.Stack{Locations: slices.Repeat([]*profile.Location{l}, 1000)}
	p := &profile.Profile{Type: profile.TypeCPU, Samples: slices.Repeat([]profile.Sample{{User: deep, Count: 1, Value: 1}}, 2000)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := Write(io.Discard, p); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes", took)
	}
}
