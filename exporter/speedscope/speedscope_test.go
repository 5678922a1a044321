package speedscope

import (
	"bytes"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// The stage browser holds such files against the published schema, and opens them in speedscope itself.
func TestWrite(t *testing.T) {
	function := func(name, file string, line int) profile.Line {
		return profile.Line{Function: &profile.Function{Name: name, File: file, StartLine: line}}
	}
	user := &profile.Stack{Truncated: "unmapped_pc", Locations: []*profile.Location{
		{Lines: []profile.Line{function("in", "", 0), function("_ZN3foo3barEv", "foo.cc", 12)}}, {Lines: []profile.Line{function("</script>\xff", "", 0)}},
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
		`"shared":{"frames":[{"name":"in"},{"name":"foo::bar","file":"foo.cc","line":12},{"name":"\u003c/script\u003e�"},{"name":"[truncated: unmapped pc]"}]},` +
		`"profiles":[{"type":"sampled","name":"cpu 2001-09-09T01:46:40Z","unit":"nanoseconds","startValue":0,"endValue":30,` +
		`"samples":[[3,2,1,0],[3,2,1,0,0],[]],"weights":[20,9,1]}]}` + "\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}
