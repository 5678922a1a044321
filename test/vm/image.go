package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pilotlight/pilotlight/test/workloads"
)

// A suite is a test binary that runs in the machine, from a package of the tree.
type suite struct {
	name string
	pkg  string
	tags string
	// everywhere are the tests that each kernel runs, and ends those that only the oldest and the newest run: what hangs
	// on the kernel's version, and takes long. Both are regular expressions as `go test` takes them; "" is none.
	everywhere, ends string
	// usual are those that only the kernel runs that most hosts have: what hangs on the length of the run.
	usual string
	// endsOn is the architecture whose ends run them; "" is each.
	endsOn string
	// last are tests that come after all others, because what they do cannot be undone.
	last  string
	files []string // that it reads, below pkg
}

// suites hold what depends on the kernel. What needs a compiler, or this host's files, stays out.
var suites = []suite{
	{
		name: "bpf", pkg: "./bpf", files: []string{"*.o"},
		everywhere: "Features$|LoadFails|Layouts|Memlock|Ring|StackTraces|Targets|Load$/^(all|v1|v2)_2_targets_softirq_true_exclude_true$",
		ends:       "LoadWithout|VerifierDropsTheOtherWay$/^(all|v2)$",
	},
	{name: "perfevent", pkg: "./profiler/perfevent", everywhere: "."},
	{
		name: "rights", pkg: "./test/rights", tags: "vm", everywhere: "RootWorksOn|RefusedCalls", endsOn: "amd64",
		ends: "MissingCapabilities|MissingInTheMachine|RefusedByTheMachine|ParanoidLevels|LowMemlock|NoBTF|CPUComesOnline",
	},
	{
		name: "system", pkg: "./test", tags: "vm", files: []string{"workloads/gosplit/main.go"},
		everywhere: "VMDoctor|VMLoad|VMWholeHost$/^(Busy|Hotplug)$|TruthC$/static|Whole$/^deep(_syscalls|_threads)?$|TruthThreads|TruthSystemCalls|ShortLived/same|AgentProfiles|SpansThreadContext$/^program$|SpansGo$/^program$",
		ends:       "VMWholeHost$/^[^BH]|VMCgroups|TruthGo/gosplit$|TargetsOfAgentInPIDNamespace",
		usual:      "VMSoak",
		last:       "VMLockdown",
	},
}

// programs are the workloads that the suites use, built static.
var programs = []string{"split", "split-static", "shapes", "threads", "syscalls", "execs", "exits", "load", "mapchurn", "gosplit", "packets", "deep", "spans", "gospans"}

// An image is the file system that a machine of one architecture starts with.
type image struct {
	architecture string
	folder       string // everything that is made for it
	root         string // what the machine sees
}

// goTool stands for the go command, of which tests use these two tools alone.
const goTool = `#!/bin/sh
case "$1 $2" in
"tool pprof" | "tool preprofile") tool=$2; shift 2; exec "$tool" "$@" ;;
esac
echo "go: only go tool pprof and preprofile are here" >&2
exit 2
`

// newImage builds all programs for an architecture.
func newImage(cache, folder, architecture string) (*image, error) {
	folder, err := filepath.Abs(filepath.Join(folder, architecture))
	if err != nil {
		return nil, err
	}
	i := &image{architecture: architecture, folder: folder, root: filepath.Join(folder, "root")}
	if err := os.RemoveAll(i.root); err != nil {
		return nil, err
	}
	for _, f := range []string{"bin", "dev", "etc", "proc", "run", "sys", "test", "tmp", "var", "workloads"} {
		if err := os.MkdirAll(filepath.Join(i.root, f), 0o755); err != nil {
			return nil, err
		}
	}
	shell, err := fetchShell(cache, architecture)
	if err != nil {
		return nil, err
	}
	return i, errors.Join(
		copyFile(shell, filepath.Join(i.root, "bin/busybox")),
		os.WriteFile(filepath.Join(i.root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"), 0o644),
		os.WriteFile(filepath.Join(i.root, "bin/go"), []byte(goTool), 0o755),
		os.WriteFile(filepath.Join(i.root, "etc/group"), []byte("root:x:0:\nnogroup:x:65534:\n"), 0o644),
		i.buildGo(), i.buildWorkloads(),
	)
}

func (i *image) buildGo() error {
	commands := [][]string{
		{"build", "-o", filepath.Join(i.root, "init"), "./test/vm/init"},
		// An agent on a whole host samples itself as well: reading 12 MB of its own symbols and DWARF would be a third of all that it does there.
		{"build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(i.root, "bin/pilotlight"), "./cmd/pilotlight"},
		{"build", "-ldflags=-s -w", "-o", filepath.Join(i.root, "bin/pprof"), "cmd/pprof"},
		{"build", "-ldflags=-s -w", "-o", filepath.Join(i.root, "bin/preprofile"), "cmd/preprofile"},
	}
	for _, s := range suites {
		if err := i.copyFiles(s); err != nil {
			return err
		}
		commands = append(commands, []string{"test", "-c", "-tags=" + s.tags, "-ldflags=-s -w", "-o", i.folderOf(s) + "/" + s.name + ".test", s.pkg})
	}
	// Linking takes one CPU, and most of the time: two at once.
	errs := make(chan error, len(commands))
	next := make(chan []string, len(commands))
	for _, args := range commands {
		next <- args
	}
	close(next)
	for range atOnce {
		go func() {
			for args := range next {
				cmd := exec.Command("go", args...)
				cmd.Env = append(os.Environ(), "GOARCH="+i.architecture, "CGO_ENABLED=0")
				out, err := cmd.CombinedOutput()
				if err != nil {
					err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
				}
				errs <- err
			}
		}()
	}
	var err error
	for range commands {
		err = errors.Join(err, <-errs)
	}
	return err
}

// folderOf is where a suite runs.
func (i *image) folderOf(s suite) string { return filepath.Join(i.root, "test", s.name) }

func (i *image) copyFiles(s suite) error {
	if err := os.MkdirAll(i.folderOf(s), 0o755); err != nil {
		return err
	}
	for _, pattern := range s.files {
		paths, err := filepath.Glob(filepath.Join(s.pkg, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			name, err := filepath.Rel(s.pkg, path)
			if err != nil {
				return err
			}
			to := filepath.Join(i.folderOf(s), name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), copyFile(path, to)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *image) buildWorkloads() error {
	b := workloads.Builder{
		Source: "test/workloads", Output: filepath.Join(i.root, "workloads"), Architecture: i.architecture, Static: true,
	}
	for _, name := range programs {
		if _, err := b.Build(name); err != nil {
			return err
		}
	}
	return nil
}

// archive packs the image with the plan of one machine, as the kernel takes it: cpio, and not compressed, because
// unpacking costs an emulated machine more than reading.
func (i *image) archive(name string, plan []string) (string, error) {
	path := filepath.Join(i.folder, name+".cpio")
	if err := os.WriteFile(filepath.Join(i.root, "plan"), []byte(strings.Join(plan, "\n")+"\n"), 0o644); err != nil {
		return "", err
	}
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd := exec.Command("sh", "-c", "find . | cpio -o -H newc --quiet")
	cmd.Dir, cmd.Stdout, cmd.Stderr = i.root, out, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("pack %s: %w", i.root, err)
	}
	return path, nil
}

// plan are the commands that a kernel's machine runs; with only, the tests that match it, in whatever suite. Else each alternative
// of a pattern must match a test.
func (k kernel) plan(only string) []string {
	var commands []string
	strict := "each "
	if only != "" {
		strict = ""
	}
	add := func(s suite, tests string) {
		if tests != "" {
			commands = append(commands, strict+fmt.Sprintf("/test/%s/%[1]s.test -test.v -test.short -test.timeout=20m -test.run=%s", s.name, tests))
		}
	}
	if only != "" {
		for _, s := range suites {
			add(s, only)
		}
		return commands
	}
	for _, s := range suites {
		tests := s.everywhere
		if k.role == end && s.ends != "" && (s.endsOn == "" || s.endsOn == k.architecture) {
			tests += "|" + s.ends
		}
		if k.role == usual && s.usual != "" {
			tests += "|" + s.usual
		}
		add(s, tests)
	}
	for _, s := range suites {
		add(s, s.last)
	}
	return commands
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
