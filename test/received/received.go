// Package received is what tests of receivers share, each of which is a module of its own: what they are sent, by the encoder and by an agent, and what a
// message says.
package received

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/test/workloads"
)

// Began is when the profile of Example does.
var Began = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// Example is a profile of two processes, with times: kernel, inlined, demangled, unnamed and truncated frames.
func Example() *profile.Profile {
	app := &profile.Mapping{Path: "/usr/bin/app", BuildID: "abcdef0123", EndsHash: "00112233445566778899aabbccddeeff", Start: 0x401000, Limit: 0x402000, Offset: 0x1000, HasFunctions: true, HasLines: true}
	kernel := &profile.Mapping{Path: "[kernel.kallsyms]", HasFunctions: true}
	line := func(name, file string, start, line int) profile.Line {
		return profile.Line{Function: &profile.Function{Name: name, File: file, StartLine: start}, Line: line}
	}
	read := &profile.Location{Kind: profile.FrameKernel, Mapping: kernel, Address: 0xffffffff81234567, Lines: []profile.Line{line("vfs_read", "", 0, 0)}}
	inlined := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401010, Lines: []profile.Line{line("leaf", "a.c", 10, 12), line("_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "a.c", 20, 25)}}
	unnamed := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401ff0, Lines: []profile.Line{line("[app+0x1ff0]", "", 0, 0)}, Unnamed: "no_symbol"}
	return &profile.Profile{
		Type: profile.TypeCPU, Start: Began, Duration: 10 * time.Second, Period: 10309278,
		Samples: []profile.Sample{
			{Kernel: &profile.Stack{Locations: []*profile.Location{read}}, User: &profile.Stack{Locations: []*profile.Location{inlined, unnamed}},
				Labels: &profile.Labels{PID: 10, TID: 11, Comm: "app", Thread: "worker", Exe: "/usr/bin/app", Cgroup: "/x.scope", ContainerID: "0123"},
				Count:  2, Value: 2 * 10309278, Times: []time.Duration{0, 10*time.Second - 1}},
			{User: &profile.Stack{Locations: []*profile.Location{unnamed}, Truncated: "unmapped_pc"}, Labels: &profile.Labels{PID: 12, Comm: "other"},
				Count: 1, Value: 5, Times: []time.Duration{time.Second}},
		},
		Account: profile.Account{Taken: 4, Exported: 3, Lost: []profile.Loss{{Reason: "ring_full", Count: 1}}},
	}
}

// Encode gives the messages of a profile.
func Encode(t *testing.T, p *profile.Profile, o otlp.Options, do func(message []byte)) {
	t.Helper()
	e, err := otlp.NewEncoder(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Encode(p, func(m otlp.Message) error { do(m.Data); return nil }); err != nil {
		t.Fatal(err)
	}
}

// A Target is a program that works in functions of known names, and what samples it.
type Target struct {
	binary string
	pid    int
}

// StartTarget builds the agent and a program, from the module's folder below test, and starts the program.
func StartTarget(t *testing.T) Target {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "pilotlight")
	build := exec.Command("go", "build", "-o", binary, "./cmd/pilotlight")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := workloads.Builder{Source: "../workloads", Output: dir}.Build("split")
	if err != nil {
		t.Fatal(err)
	}
	target := exec.Command(program, "120")
	start(t, target)
	return Target{binary, target.Process.Pid}
}

// Sample runs an agent on the program until enough has come of it.
func (target Target) Sample(t *testing.T, enough func() bool, args ...string) {
	t.Helper()
	var output bytes.Buffer
	args = append([]string{"agent", "--no-history", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "-p", strconv.Itoa(target.pid)}, args...)
	agent := exec.Command(target.binary, args...)
	agent.Stderr = &output
	end := start(t, agent)
	for deadline := time.Now().Add(time.Minute); !enough(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			end()
			t.Fatalf("too little came of the agent\n%s", output.String())
		}
	}
	end() // nothing more comes
}

func start(t *testing.T, cmd *exec.Cmd) (end func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return end
}

// A Frame is a line of a location.
type Frame struct {
	Name, System, File string
	Start, Line        int64
	Address            uint64 // of the location
	Mapping, BuildID   string
}

// ExampleFrames are those of the two stacks of Example, as a receiver should have them.
func ExampleFrames() [2][]Frame {
	const app, id = "/usr/bin/app", "abcdef0123"
	unnamed := Frame{"[app+0x1ff0]", "[app+0x1ff0]", "", 0, 0, 0x401ff0, app, id}
	return [2][]Frame{
		{
			{"vfs_read", "vfs_read", "", 0, 0, 0xffffffff81234567, "[kernel.kallsyms]", ""},
			{"leaf", "leaf", "a.c", 10, 12, 0x401010, app, id},
			{"geo::area<geo::Circle, 7>", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "a.c", 20, 25, 0x401010, app, id},
			unnamed,
		},
		{unnamed, {Name: "[truncated: unmapped pc]", System: "[truncated: unmapped pc]"}},
	}
}

// Frames are those of a stack, innermost first, by the words of the protocol.
func Frames(d *profilespb.ProfilesDictionary, stack int32) (frames []Frame) {
	text := func(i int32) string { return d.StringTable[i] }
	for _, i := range d.StackTable[stack].LocationIndices {
		l := d.LocationTable[i]
		m := d.MappingTable[l.MappingIndex]
		var id string
		for _, i := range m.AttributeIndices {
			if a := d.AttributeTable[i]; text(a.KeyStrindex) == "process.executable.build_id.gnu" {
				id = a.Value.GetStringValue()
			}
		}
		for _, line := range l.Lines {
			f := d.FunctionTable[line.FunctionIndex]
			frames = append(frames, Frame{text(f.NameStrindex), text(f.SystemNameStrindex), text(f.FilenameStrindex), f.StartLine, line.Line, l.Address, text(m.FilenameStrindex), id})
		}
	}
	return frames
}

// Message is what bytes say.
func Message(t *testing.T, data []byte) *profilespb.ProfilesData {
	t.Helper()
	m := new(profilespb.ProfilesData)
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// EachSample visits the samples of a message.
func EachSample(of []*profilespb.ResourceProfiles, visit func(*profilespb.ResourceProfiles, *profilespb.Profile, *profilespb.Sample)) {
	for _, resource := range of {
		for _, scope := range resource.ScopeProfiles {
			for _, p := range scope.Profiles {
				for _, s := range p.Samples {
					visit(resource, p, s)
				}
			}
		}
	}
}

// Kept are the rows that a receiver made of messages. Safe for concurrent use.
type Kept[Row any] struct {
	mutex sync.Mutex
	rows  []Row
	errs  []error
}

// Add takes rows, and what went wrong.
func (k *Kept[Row]) Add(rows []Row, err error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.rows = append(k.rows, rows...)
	k.errs = append(k.errs, err)
}

// Rows are those until now. Where something went wrong the test has failed.
func (k *Kept[Row]) Rows(t *testing.T) []Row {
	t.Helper()
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if err := errors.Join(k.errs...); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(k.rows)
}

// CheckFunctions wants the functions of a Target on the stacks of rows.
func CheckFunctions[Row any](t *testing.T, rows []Row, frames func(*Row) []Frame) {
	t.Helper()
	found := make(map[string]bool)
	for i := range rows {
		for _, f := range frames(&rows[i]) {
			found[f.Name] = true
		}
	}
	for _, name := range []string{"burn_a", "burn_b", "burn_c", "middle", "work", "main"} {
		if !found[name] {
			t.Errorf("no %s among %v", name, found)
		}
	}
}

// Sums adds up the values of rows that are alike in all but their value, which each gives apart.
func Sums[Row any](rows []Row, apart func(*Row) (value int64)) map[string]int64 {
	sums := make(map[string]int64)
	for _, r := range rows {
		value := apart(&r)
		sums[fmt.Sprintf("%+v", r)] += value
	}
	return sums
}

// CheckEqual holds rows, in their order, against what is wanted.
func CheckEqual[Row any](t *testing.T, got, want []Row) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("not there: %+v", want[i])
		case i >= len(want):
			t.Errorf("too much: %+v", got[i])
		case !reflect.DeepEqual(got[i], want[i]):
			t.Errorf("got\n%+v\nwant\n%+v", got[i], want[i])
		}
	}
}
