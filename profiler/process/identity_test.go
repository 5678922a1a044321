package process

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

const (
	contextMaps    = "1000-2000 rw-p 00000000 00:01 77 /memfd:OTEL_CTX (deleted)\n"
	otherMaps      = "400000-401000 r-xp 00000000 08:01 5 /bin/x\n"
	contextAddress = 0x1000
)

// publishes puts a process context in the process's memory; published 0 says that it is being written.
func (f fakeProc) publishes(pid int, published uint64, pairs ...string) {
	f.t.Helper()
	message := func(fields ...string) (b []byte) {
		for i, field := range fields {
			b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), field)
		}
		return b
	}
	var resource []byte
	for i := 0; i < len(pairs); i += 2 {
		pair := message(pairs[i], string(message(pairs[i+1])))
		resource = protowire.AppendBytes(protowire.AppendTag(resource, 1, protowire.BytesType), pair)
	}
	payload := message(string(resource))
	memory := make([]byte, contextAddress+32)
	copy(memory[contextAddress:], "OTEL_CTX")
	header := memory[contextAddress+8:]
	binary.NativeEndian.PutUint32(header, 2)
	binary.NativeEndian.PutUint32(header[4:], uint32(len(payload)))
	binary.NativeEndian.PutUint64(header[8:], published)
	binary.NativeEndian.PutUint64(header[16:], uint64(len(memory)))
	f.write(pid, "mem", string(memory)+string(payload))
	f.write(pid, "maps", otherMaps+contextMaps)
}

// says gives the labels of a sample that was taken at a time.
func says(t *Table, pid int, at uint64) *profile.Labels {
	p := t.At(pid, at)
	if p == nil {
		return new(profile.Labels)
	}
	t.Identify(p, at)
	return t.Labels(p, [16]byte{}, 0, 1)
}

func TestIdentify(t *testing.T) {
	table, proc := newTestTable(t)
	expect := func(pid int, at uint64, service string, pairs ...string) {
		t.Helper()
		var resource []profile.Attribute
		for i := 0; i < len(pairs); i += 2 {
			resource = append(resource, profile.Attribute{Key: pairs[i], Value: pairs[i+1]})
		}
		if l := says(table, pid, at); l.ServiceName() != service || !reflect.DeepEqual(l.Resource, resource) {
			t.Errorf("process %d at %v: %q %v, want %q %v", pid, time.Duration(at), l.ServiceName(), l.Resource, service, resource)
		}
	}
	proc.process(10, 1, "sh", otherMaps)
	proc.write(10, "mem", "")
	proc.write(10, "environ", "PASSWORD=secret\x00OTEL_SERVICE_NAME=web\x00OTEL_RESOURCE_ATTRIBUTES=team=a,service.version=1\x00")
	expect(10, 10*second, "web", "service.version", "1", "team", "a")

	// The environment is read once for each program.
	proc.write(10, "environ", "OTEL_SERVICE_NAME=other\x00")
	expect(10, 12*second, "web", "service.version", "1", "team", "a")
	// A process context comes while it runs. It is seen when the process is asked again, as long after its beginning as it took to come.
	proc.publishes(10, 7, "service.name", "checkout", "team", "b")
	expect(10, 12*second+second/2, "web", "service.version", "1", "team", "a")
	expect(10, 14*second, "checkout", "service.version", "1", "team", "b")
	// It changes.
	proc.publishes(10, 8, "service.name", "checkout2")
	expect(10, 23*second, "checkout", "service.version", "1", "team", "b")
	expect(10, 24*second, "checkout2", "service.version", "1", "team", "a")
	// It is amidst a change: what it said stands.
	proc.publishes(10, 0)
	expect(10, 34*second, "checkout2", "service.version", "1", "team", "a")
	// It is taken back.
	proc.write(10, "mem", strings.Repeat("\x00", 0x3000))
	proc.write(10, "maps", otherMaps)
	expect(10, 44*second, "web", "service.version", "1", "team", "a")

	// A fork has its parent's environment, and no process context of its own yet.
	proc.publishes(10, 9, "service.name", "checkout")
	expect(10, 76*second, "checkout", "service.version", "1", "team", "a")
	proc.process(11, 10, "sh", otherMaps)
	proc.write(11, "environ", "OTEL_SERVICE_NAME=unread\x00")
	table.apply(fork(77*second, 11, 10))
	expect(11, 77*second+1, "web", "service.version", "1", "team", "a")
	// An exec begins anew.
	table.apply(exec(78*second, 11, "true"))
	expect(11, 78*second+1, "unread")

	// Programs that are gone had the environment of who started them, which is asked if it was not yet.
	proc.process(20, 1, "make", otherMaps)
	proc.write(20, "environ", "OTEL_SERVICE_NAME=build\x00")
	table.At(20, 80*second)
	table.apply(fork(80*second, 21, 20), exec(81*second, 21, "cc"))
	expect(21, 82*second, "build")
	proc.process(22, 20, "zombie", "")
	proc.write(22, "environ", "")
	proc.write(22, "mem", "")
	table.apply(fork(83*second, 22, 20), exec(84*second, 22, "cc"))
	expect(22, 85*second, "build")

	// Nothing is kept of those that are no more.
	for _, pid := range []int{10, 11, 20, 21, 22} {
		table.apply(exit(90*second, pid))
		proc.gone(pid)
	}
	table.Expire(90*second + uint64(keepExited))
	if len(table.processes) != 0 || len(table.said) != 0 || table.saidBytes != 0 {
		t.Errorf("%d processes are left, and %d things that they said, of %d bytes", len(table.processes), len(table.said), table.saidBytes)
	}
}

// An environment that is not there yet, amidst an exec, is read later; ids of container and pod count where no cgroup tells them.
func TestIdentityLater(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	table, proc := newTestTable(t)
	proc.process(10, 1, "x", otherMaps)
	proc.write(10, "environ", "")
	if l := says(table, 10, second); l.ServiceName() != "x" {
		t.Errorf("%q", l.ServiceName())
	}
	proc.write(10, "environ", "OTEL_SERVICE_NAME=a\x00OTEL_RESOURCE_ATTRIBUTES=container.id=said,k8s.pod.uid=uid,k=v\x00")
	l := says(table, 10, 3*second)
	if want := []profile.Attribute{{Key: "k", Value: "v"}}; l.Service != "a" || l.ContainerID != "said" || l.PodUID != "uid" || !reflect.DeepEqual(l.Resource, want) {
		t.Errorf("%+v", l)
	}
	proc.write(10, "cgroup", "0::/docker/"+id)
	if l := table.Labels(table.At(10, 4*second), [16]byte{}, 0, 2); l.ContainerID != id || l.PodUID != "uid" {
		t.Errorf("%+v", l)
	}
}

// What a process is called by where it says nothing itself.
func TestServiceUnsaid(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct{ cgroup, exe, comm, want string }{
		"unit":                      {"0::/system.slice/web\\x2dserver.service", "/bin/python3", "gunicorn", "web-server"},
		"session":                   {"0::/user.slice/user-0.slice/session-1.scope", "/bin/bash", "bash", "bash"},
		"user's manager":            {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope", "/bin/firefox", "Web Content", "firefox"},
		"pod":                       {"0::/system.slice/containerd.service/kubepods-pod5f3a2b1c_9d8e_4f7a_b6c5_d4e3f2a1b0c9.slice:cri-containerd:" + id, "/bin/redis-server", "redis", "redis-server"},
		"container":                 {"0::/docker/" + id, "/bin/redis-server", "redis", "redis-server"},
		"no executable":             {"0::/", "", "kworker/0:1", "kworker/0:1"},
		"nothing but the container": {"0::/docker/" + id, "", "", id[:12]},
	} {
		table, proc := newTestTable(t)
		proc.process(10, 1, c.comm, otherMaps)
		proc.write(10, "cgroup", c.cgroup)
		if c.exe != "" {
			proc.link(10, "exe", c.exe)
		}
		if l := says(table, 10, second); l.ServiceName() != c.want {
			t.Errorf("%s: %q, want %q", name, l.ServiceName(), c.want)
		}
	}
}

// Equal things that are said are kept once, and labels are one pointer as long as nothing changes.
func TestIdentityShared(t *testing.T) {
	table, proc := newTestTable(t)
	for pid := 10; pid < 13; pid++ {
		proc.process(pid, 1, "x", otherMaps)
		proc.write(pid, "environ", "OTEL_SERVICE_NAME=a\x00OTEL_RESOURCE_ATTRIBUTES=k=v\x00")
	}
	l, other := says(table, 10, second), says(table, 11, second)
	if &l.Resource[0] != &other.Resource[0] || len(table.said) != 1 {
		t.Errorf("two processes that say the same keep %d", len(table.said))
	}
	for at := second; at < 100*second; at += second {
		if again := says(table, 10, at); again != l {
			t.Fatalf("after %v the labels are others", time.Duration(at))
		}
	}
}

// What all processes say is bounded.
func TestIdentityBound(t *testing.T) {
	table, proc := newTestTable(t)
	const processes = 3000
	for pid := 1; pid <= processes; pid++ {
		proc.process(pid, 0, "x", otherMaps)
		var list []string
		for i := range 8 {
			list = append(list, fmt.Sprintf("k%d=%d%s", i, pid, strings.Repeat("v", 480)))
		}
		proc.write(pid, "environ", "OTEL_RESOURCE_ATTRIBUTES="+strings.Join(list, ",")+"\x00")
		if l := says(table, pid, second); l.ServiceName() != "x" {
			t.Fatalf("process %d is called %q", pid, l.Service)
		}
		if table.saidBytes > maxSaidBytes {
			t.Fatalf("%d bytes are kept", table.saidBytes)
		}
	}
	if table.Stats.IdentitiesRefused == 0 || len(table.said) < maxSaidBytes/10000 {
		t.Errorf("%d are kept, %d refused", len(table.said), table.Stats.IdentitiesRefused)
	}
}

// A process whose memory does not answer holds up naming for a moment, once, and nobody's but its owner's.
func TestIdentityHangs(t *testing.T) {
	table, proc := newTestTable(t)
	const hanging = 20
	for pid := 10; pid < 10+hanging; pid++ {
		proc.process(pid, 1, "hangs", otherMaps)
		if err := unix.Mkfifo(filepath.Join(proc.dir, strconv.Itoa(pid), "environ"), 0o644); err != nil { // opening waits for a writer
			t.Fatal(err)
		}
		p := table.At(pid, second)
		p.mountNS = 7
	}
	proc.process(100, 1, "other", otherMaps)
	proc.write(100, "environ", "OTEL_SERVICE_NAME=a\x00")
	begun := time.Now()
	for round := range uint64(10) {
		for pid := 10; pid < 10+hanging; pid++ {
			if l := says(table, pid, (1+100*round)*second); l.ServiceName() != "hangs" {
				t.Errorf("process %d is called %q", pid, l.Service)
			}
		}
	}
	if took := time.Since(begun); took > 20*identityPatience {
		t.Errorf("naming was held up for %v", took)
	}
	if l := says(table, 100, second); l.Service != "a" {
		t.Errorf("another process is called %q", l.Service)
	}
	// Now they answer, those that were asked.
	late := 0
	for pid := 10; pid < 10+hanging; pid++ {
		if table.processes[pid].identity.late == nil {
			continue
		}
		late++
		f, err := os.OpenFile(filepath.Join(proc.dir, strconv.Itoa(pid), "environ"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("OTEL_SERVICE_NAME=late\x00"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Second)
		for at := 2000 * second; says(table, pid, at).Service != "late"; at += 100 * second {
			if time.Now().After(end) {
				t.Fatalf("process %d is called %q", pid, says(table, pid, at).Service)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if late == 0 || late > MaxHungDevice {
		t.Errorf("%d were left to themselves", late)
	}
}
