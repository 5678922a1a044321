package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"
)

// A software is a program of a distribution, built without frame pointers, and what keeps it busy.
type software struct {
	name    string
	setUp   [][]string // commands, before
	program []string
	port    string   // where the program listens, "" if it does not
	fill    []string // a command, once it listens
	load    []string // runs beside it
	until   bool     // the program ends by itself and is sampled until then, with all that it starts
	user    *syscall.Credential
}

const (
	softwareHz   = "499"
	softwareSpan = "10s"
)

// benchSoftware samples everyday software, and prints how many of its stacks are whole.
func benchSoftware(ctx context.Context, binary, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // for those that are not root
		return err
	}
	list, err := everyday(dir)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "program\tsamples\twhole stacks %\tmedian frames\tmost\tthe others %\t")
	for _, s := range list {
		p, err := s.sample(ctx, binary, filepath.Join(dir, "software.pb.gz"))
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		stacks, err := stacksOf(p)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(w, "%s\t%s\t\n", s.name, stacks)
	}
	fmt.Printf("everyday software, sampled at %s Hz\n", softwareHz)
	return w.Flush()
}

// everyday is the list, with its files in dir.
func everyday(dir string) ([]software, error) {
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, contents := range map[string]string{
		"large.c": largeSource(), "page.txt": strings.Repeat("All work and no play makes Jack a dull boy.\n", 500),
	} {
		if err := os.WriteFile(file(name), []byte(contents), 0o644); err != nil {
			return nil, err
		}
	}
	large, err := filepath.Glob("/usr/lib/*-linux-gnu/libLLVM.so.19*")
	if err != nil || len(large) == 0 {
		return nil, errors.Join(err, errors.New("no libLLVM 19 on this host: test/setup.sh bench"))
	}
	postgres, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(postgres) == 0 {
		return nil, errors.Join(err, errors.New("no PostgreSQL on this host: test/setup.sh bench"))
	}
	postgresBin := func(name string) string { return filepath.Join(postgres[len(postgres)-1], name) }
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	nginx := fmt.Sprintf("daemon off; worker_processes 2; user nobody nogroup; pid %s; events {} http { access_log off; gzip on; gzip_types *; "+
		"server { listen 127.0.0.1:%s ssl; ssl_certificate %s; ssl_certificate_key %s; root %s; } }",
		file("nginx.pid"), ports[1], file("cert.pem"), file("key.pem"), dir)
	if err := os.WriteFile(file("nginx.conf"), []byte(nginx), 0o644); err != nil {
		return nil, err
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534} // PostgreSQL refuses root
	if err := errors.Join(os.Mkdir(file("postgres"), 0o700), os.Chown(file("postgres"), int(nobody.Uid), int(nobody.Gid))); err != nil {
		return nil, err
	}
	client := []string{"-h", "127.0.0.1", "-p", ports[2], "-U", "bench"}
	return []software{
		{
			name: "redis-server", program: []string{"redis-server", "--bind", "127.0.0.1", "--port", ports[0], "--save", "", "--dir", dir}, port: ports[0],
			load: []string{"redis-benchmark", "-p", ports[0], "-l", "-q", "-P", "16", "-r", "100000", "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset"},
		}, {
			name:    "nginx",
			setUp:   [][]string{{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", file("key.pem"), "-out", file("cert.pem")}},
			program: []string{"nginx", "-e", "stderr", "-c", file("nginx.conf")}, port: ports[1],
			load: []string{"wrk", "-t", "1", "-c", "16", "-d", "10m", "-H", "Accept-Encoding: gzip", "https://127.0.0.1:" + ports[1] + "/page.txt"},
		}, {
			name: "PostgreSQL", user: nobody,
			setUp:   [][]string{{postgresBin("initdb"), "-D", file("postgres"), "-U", "bench", "--auth", "trust", "--no-sync"}},
			program: []string{postgresBin("postgres"), "-D", file("postgres"), "-k", file("postgres"), "-h", "127.0.0.1", "-p", ports[2]}, port: ports[2],
			fill: slices.Concat([]string{"pgbench", "-i", "-q", "-s", "5"}, client, []string{"postgres"}),
			load: slices.Concat([]string{"pgbench", "-T", "600", "-c", "4"}, client, []string{"postgres"}),
		},
		{name: "gcc -O2", program: []string{"gcc", "-O2", "-c", "-o", file("large.o"), file("large.c")}, until: true},
		{name: "xz", program: []string{"xz", "-9", "-c", large[0]}},
		{name: "python3", program: []string{"/usr/bin/python3", "test/bench/testdata/everyday.py"}},
		{name: "node", program: []string{"node", "test/bench/testdata/everyday.js"}},
	}, nil
}

// largeSource is a file that gcc needs some time for.
func largeSource() string {
	var b strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&b, `
double f%[1]d(const double *a, int *b, int n)
{
	double sum = %[1]d;
	for (int i = 0; i < n; i++) {
		for (int j = i; j < n; j += %[2]d) {
			switch (b[j] & 7) {
			case 0: sum += a[i] * a[j]; break;
			case 1: b[i] = b[j] / %[2]d; break;
			case 2: sum -= a[j] / (b[i] + %[1]d.5); break;
			case 5: for (int k = 0; k < 8; k++) b[k] += b[j] >> k; break;
			default: if (sum > a[j]) sum *= a[i]; else b[j]++;
			}
		}
	}
	return sum;
}
`, i, i%7+1)
	}
	return b.String()
}

// freePorts finds TCP ports that nobody listens at.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are found: they differ
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}

// sample runs the program and its load, and records the program.
func (s *software) sample(ctx context.Context, binary, output string) (*profile.Profile, error) {
	for _, command := range s.setUp {
		if err := s.run(ctx, command); err != nil {
			return nil, err
		}
	}
	record := []string{binary, "record", "-F", softwareHz, "-o", output}
	if s.until {
		if err := run(exec.CommandContext(ctx, record[0], slices.Concat(record[1:], []string{"--"}, s.program)...)); err != nil {
			return nil, err
		}
		return readProfile(output)
	}
	program, err := s.start(s.program)
	if err != nil {
		return nil, err
	}
	defer program.stop()
	if s.port != "" {
		if err := program.awaitPort(ctx, s.port); err != nil {
			return nil, err
		}
	}
	if s.fill != nil {
		if err := s.run(ctx, s.fill); err != nil {
			return nil, err
		}
	}
	busy := []*running{program}
	if s.load != nil {
		load, err := s.start(s.load)
		if err != nil {
			return nil, err
		}
		defer load.stop()
		busy = append(busy, load)
	}
	record = append(record, "-p", strconv.Itoa(program.cmd.Process.Pid), "--children", "-d", softwareSpan)
	if err := run(exec.CommandContext(ctx, record[0], record[1:]...)); err != nil {
		return nil, err
	}
	for _, r := range busy {
		if err := r.alive(); err != nil {
			return nil, err
		}
	}
	return readProfile(output)
}

// command is one that runs as the software's user, and does not outlive this process.
func (s *software) command(args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGINT, Credential: s.user}
	return cmd
}

func (s *software) run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = s.command(args).SysProcAttr
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w (is it installed? test/setup.sh bench)\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// running is a process that goes on until it is stopped.
type running struct {
	cmd   *exec.Cmd
	said  bytes.Buffer // on stderr
	ended chan error
}

func (s *software) start(args []string) (*running, error) {
	r := &running{cmd: s.command(args), ended: make(chan error, 1)}
	r.cmd.Stderr = &r.said
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; test/setup.sh bench installs it", err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	return r, nil
}

func (r *running) alive() error {
	select {
	case err := <-r.ended:
		r.ended <- err
		return fmt.Errorf("%s ended early: %w\n%s", r.cmd.Args[0], errors.Join(err, errors.New("exit")), r.said.String())
	default:
		return nil
	}
}

// stop interrupts it: of that all of them end, and the processes that they started.
func (r *running) stop() {
	_ = r.cmd.Process.Signal(os.Interrupt)
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
}

func (r *running) awaitPort(ctx context.Context, port string) error {
	for range 600 {
		if err := r.alive(); err != nil {
			return err
		}
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+port); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen at port %s", r.cmd.Args[0], port)
}

func readProfile(path string) (*profile.Profile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return profile.Parse(file)
}

// stacks say how much of them is there.
type stacks struct {
	samples, whole int64
	depths         []int            // of each sample
	broken         map[string]int64 // samples, by why they are not whole
}

// stacksOf looks at all stacks of a profile. A stack is whole if no frame says that callers are missing, and if it begins where processes or threads do: so the
// table does not rely on what the walk believes.
func stacksOf(p *profile.Profile) (*stacks, error) {
	s := &stacks{broken: make(map[string]int64)}
	entries := make(map[string]uint64)
	for _, sample := range p.Sample {
		n := sample.Value[0]
		s.samples += n
		frames := sample.Location
		if len(frames) == 0 {
			s.broken["no frames"] += n
			continue
		}
		last := frames[len(frames)-1]
		reason := ""
		if name := nameOf(last); strings.HasPrefix(name, "[truncated: ") {
			frames = frames[:len(frames)-1]
			reason = strings.Trim(name, "[]")
		} else if begins, err := beginsThread(last, entries); err != nil {
			return nil, err
		} else if !begins {
			reason = "begins in " + name
		}
		if reason == "" {
			s.whole += n
		} else {
			s.broken[reason] += n
		}
		s.depths = append(s.depths, slices.Repeat([]int{len(frames)}, int(n))...)
	}
	if s.samples == 0 {
		return nil, errors.New("no samples")
	}
	slices.Sort(s.depths)
	return s, nil
}

func nameOf(l *profile.Location) string {
	if len(l.Line) == 0 {
		return fmt.Sprintf("%#x", l.Address)
	}
	return l.Line[len(l.Line)-1].Function.Name
}

// startBytes is how long the code is that a program starts with: glibc's has 34 bytes, and the dynamic loader's 90.
const startBytes = 96

// beginsThread reports whether a stack's outermost frame is where nothing is missing: a thread's first function, the start of a program, which distributions leave
// without a name, or the kernel of a task that has left user space for good.
func beginsThread(l *profile.Location, entries map[string]uint64) (bool, error) {
	switch strings.TrimLeft(nameOf(l), "_") {
	case "start", "clone", "clone3", "GI___clone", "GI___clone3", "dl_start_user", "libc_start_call_main":
		return true, nil
	}
	if l.Mapping == nil {
		return false, nil
	}
	if strings.HasPrefix(l.Mapping.File, "[kernel") {
		return true, nil
	}
	entry, ok := entries[l.Mapping.File]
	if !ok {
		f, err := elf.Open(l.Mapping.File)
		if err != nil {
			return false, err
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && f.Entry-p.Vaddr < p.Filesz {
				entry = f.Entry - p.Vaddr + p.Off
			}
		}
		entries[l.Mapping.File] = entry
	}
	return l.Address-l.Mapping.Start+l.Mapping.Offset-entry < startBytes, nil
}

func (s *stacks) String() string {
	percent := func(n int64) string { return fmt.Sprintf("%.1f", 100*float64(n)/float64(s.samples)) }
	reasons := slices.SortedFunc(maps.Keys(s.broken), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.broken[b], s.broken[a]), cmp.Compare(a, b))
	})
	for i, r := range reasons {
		reasons[i] = r + " " + percent(s.broken[r])
	}
	if len(reasons) == 0 {
		reasons = []string{"-"}
	}
	median, most := 0, 0
	if n := len(s.depths); n > 0 {
		median, most = s.depths[n/2], s.depths[n-1]
	}
	return fmt.Sprintf("%d\t%s\t%d\t%d\t%s", s.samples, percent(s.whole), median, most, strings.Join(reasons, ", "))
}
