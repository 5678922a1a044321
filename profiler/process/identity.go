package process

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/container"
	"github.com/pilotlight/pilotlight/profiler/identity"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// identityState is what is known of what a process says of itself, and how it is asked again. A process is asked when a sample of it comes:
// its environment once for each program that it runs, its process context again and again, since that may come and change at any time.
type identityState struct {
	// environ is by its environment alone, which those that it forks have too; all is with the process context.
	environ, all *said
	environRead  bool

	context   uint64 // address of the process context's header; 0: none was found
	published uint64 // when, as it says itself

	next uint64        // by the clock of samples: when it is asked again
	wait time.Duration // before that; grows as long as there is no process context
	late chan identityAnswer
}

// said is what is kept for all processes that say the same.
type said struct {
	identity.Said
	// containerID and podUID count where no cgroup tells them; rest are the other attributes.
	containerID, podUID string
	rest                []profile.Attribute
	key                 string
	users               int
}

// How often a process is asked: at once, a second later, two more seconds later, ... So a context that comes a while after the first sample is seen when as long
// has passed once more, or after identityMost. What is known of a process context that changes is seen after contextInterval.
const (
	identityFirst   = time.Second
	identityMost    = 30 * time.Second
	contextInterval = 10 * time.Second
	// identityRest is how many times as long as the answer took a process is left alone: one with 65,000 mappings takes 50 ms.
	identityRest = 200
	// identityPatience is how long naming waits for the answer. What comes later is taken when the process is asked again.
	identityPatience = 50 * time.Millisecond
	// maxSaidBytes bounds what is kept of all processes: that of 20,000 that say different things of usual length. Further ones go by what is known of them otherwise.
	maxSaidBytes = 8 << 20
	// maxMapsBytes bounds the list of mappings that is looked through: that of 65,530, the most that the kernel allows by default.
	maxMapsBytes = 8 << 20
)

// identityQuestion is what is asked of a process.
type identityQuestion struct {
	proc      string // its directory
	environ   bool
	context   uint64
	published uint64
}

// identityAnswer is what it said.
type identityAnswer struct {
	environ *identity.Said // nil: not asked, or not there yet
	gone    bool           // nothing could be read of it any more
	// changed says that context is another one than was known, or none any more.
	changed   bool
	said      identity.Said
	context   uint64
	published uint64
}

// Identify asks a process what it says of itself, if that is due when a sample of it was taken.
func (t *Table) Identify(p *Process, sampled uint64) {
	s := &p.identity
	if sampled < s.next || p.kernel {
		return
	}
	begun := time.Now()
	if answer, ok := t.ask(p); ok {
		t.take(p, &answer, sampled)
	}
	s.wait = min(max(2*s.wait, identityFirst), identityMost)
	if s.context != 0 {
		s.wait = contextInterval
	}
	s.next = sampled + uint64(max(s.wait, min(identityRest*time.Since(begun), rereadMost)))
}

// ask asks a process; false where it does not answer in time.
func (t *Table) ask(p *Process) (identityAnswer, bool) {
	s := &p.identity
	if s.late != nil { // the one before
		select {
		case answer := <-s.late:
			s.late = nil
			return answer, true
		default:
			return identityAnswer{}, false
		}
	}
	q := identityQuestion{proc: t.path(p.PID, ""), environ: !s.environRead, context: s.context, published: s.published}
	result := make(chan identityAnswer, 1)
	// All of it waits for the process's memory, which whoever runs it can stop for good. That is counted by whose it is: those who do
	// so keep nobody but themselves from being asked.
	switch err := t.files.identities.do(owner(q.proc, p.mountNS), func() { result <- q.ask() }); {
	case err == errHung || err == errSlow:
		s.late = result
		return identityAnswer{}, false
	case err != nil:
		return identityAnswer{}, false
	}
	return <-result, true
}

// owner is a number for the user and the mount namespace of a process.
func owner(proc string, mountNS uint64) uint64 {
	var stat unix.Stat_t
	_ = unix.Stat(proc, &stat) // whoever is gone belongs to root, and does not hang
	return uint64(stat.Uid)<<32 ^ mountNS
}

// take takes what a process said.
func (t *Table) take(p *Process, a *identityAnswer, sampled uint64) {
	s := &p.identity
	switch {
	case a.environ != nil && !a.gone:
		s.environRead = true
		t.letGo(s.environ)
		s.environ = t.keep(*a.environ)
	case a.gone && !s.environRead:
		// It was gone before its first sample was looked at. Programs are mostly started with the environment of who starts them.
		s.environRead = true
		if parent := t.processes[p.ParentPID]; parent != nil && parent != p && parent.ParentPID != p.PID {
			if !parent.identity.environRead && parent.exited == 0 {
				t.Identify(parent, sampled)
			}
			s.environ = share(parent.identity.environ)
		}
	}
	if a.gone {
		a.changed = false // what it said stands
	}
	if a.changed {
		s.context, s.published = a.context, a.published
	}
	before := s.all
	switch {
	case a.changed && !a.said.Empty():
		var environ identity.Said
		if s.environ != nil {
			environ = s.environ.Said
		}
		s.all = t.keep(a.said.Over(environ))
	case a.changed || before == nil:
		s.all = share(s.environ)
	default:
		return
	}
	if s.all != before {
		t.dropLabels(p)
	}
	t.letGo(before)
}

// forkIdentity is that of a process that was forked: its environment is its parent's, its process context is not.
func forkIdentity(parent *Process, now uint64) identityState {
	s := identityState{environRead: parent.identity.environRead, environ: share(parent.identity.environ), all: share(parent.identity.environ)}
	if s.environRead {
		s.next = now + uint64(identityFirst)
	}
	return s
}

// dropIdentity forgets what a process said.
func (t *Table) dropIdentity(p *Process) {
	t.letGo(p.identity.environ)
	t.letGo(p.identity.all)
	p.identity = identityState{}
}

// keep gives what stands for something said, one pointer for equal ones; nil where nothing was said, or there is no room for it.
func (t *Table) keep(of identity.Said) *said {
	if of.Empty() {
		return nil
	}
	key := of.Service
	for _, a := range of.Attributes {
		// With their lengths, since anything may be in them.
		key = string(binary.AppendUvarint([]byte(key), uint64(len(a.Key)))) + a.Key + a.Value + "\x00"
	}
	if known := t.said[key]; known != nil {
		return share(known)
	}
	size := of.Bytes() + len(key)
	if t.saidBytes+size > maxSaidBytes {
		if t.Stats.IdentitiesRefused == 0 {
			t.log.Warn("processes say too much of themselves; further ones are called by what else is known of them", "most", maxSaidBytes)
		}
		t.Stats.IdentitiesRefused++
		return nil
	}
	t.saidBytes += size
	s := &said{Said: of, key: key, users: 1}
	for _, a := range of.Attributes {
		switch a.Key {
		case "container.id":
			s.containerID = a.Value
		case "k8s.pod.uid":
			s.podUID = a.Value
		default:
			s.rest = append(s.rest, a)
		}
	}
	t.said[key] = s
	return s
}

func share(s *said) *said {
	if s != nil {
		s.users++
	}
	return s
}

func (t *Table) letGo(s *said) {
	if s == nil {
		return
	}
	if s.users--; s.users == 0 {
		t.saidBytes -= s.Bytes() + len(s.key)
		delete(t.said, s.key)
	}
}

// ask reads what a process says. It runs where it may hang, and touches nothing of the table.
func (q *identityQuestion) ask() (a identityAnswer) {
	a.context, a.published = q.context, q.published
	if q.environ {
		environ, size, err := readEnviron(q.proc + "environ")
		a.gone = gone(err)
		if size > 0 || err != nil { // it is empty while an exec is under way
			a.environ = &environ
		}
	}
	memory, err := os.Open(q.proc + "mem")
	if err != nil {
		return a // not permitted, or it is gone: what is known stands
	}
	defer memory.Close()
	if q.context != 0 && a.read(memory, q.context, q.published) {
		return a
	}
	found, lines, err := findContexts(q.proc + "maps")
	a.gone = gone(err) || err == nil && lines == 0 // one without memory has ended, and waits for its parent
	if err != nil || a.gone {
		return a
	}
	for _, at := range found {
		if a.read(memory, at, 0) {
			return a
		}
	}
	// What is there may be about to be written; it is looked at again.
	a.changed, a.context, a.published, a.said = q.context != 0, 0, 0, identity.Said{}
	return a
}

// gone says whether a process is no more, by what came of reading its files.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// read reads the process context at an address; true where there is one.
func (a *identityAnswer) read(memory io.ReaderAt, at, known uint64) bool {
	said, published, err := identity.ReadContext(memory, at, known)
	if errors.Is(err, identity.ErrChanging) {
		return known != 0 // what it said before stands
	}
	if err != nil {
		return false
	}
	a.changed, a.said, a.context, a.published = published != known, said, at, published
	return true
}

// environBuffer is used again, so that what is in an environment stays in one place, and is overwritten there.
var environBuffer atomic.Pointer[[]byte]

// readEnviron reads what the environment says, and gives its size.
func readEnviron(path string) (_ identity.Said, size int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return identity.Said{}, 0, err
	}
	defer f.Close()
	buffer := environBuffer.Swap(nil)
	if buffer == nil {
		buffer = new([]byte)
		*buffer = make([]byte, identity.MaxEnviron)
	}
	n, err := io.ReadFull(f, *buffer)
	defer func() {
		clear((*buffer)[:n])
		environBuffer.Store(buffer)
	}()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return identity.Said{}, n, err
	}
	return identity.FromEnviron((*buffer)[:n]), n, nil
}

func findContexts(path string) (at []uint64, lines int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	return identity.FindContexts(io.LimitReader(f, maxMapsBytes))
}

// identify fills in the labels that say which service a process is part of: by what it says itself, or else by the best that is known of it.
func (p *Process) identify(l *profile.Labels) {
	if s := p.identity.all; s != nil {
		l.Service, l.Resource = s.Service, s.rest
		l.ContainerID, l.PodUID = cmp.Or(l.ContainerID, s.containerID), cmp.Or(l.PodUID, s.podUID)
	}
	if l.Service == "" {
		l.Service = container.Service(l.Cgroups)
	}
	const short = 12 // as docker ps shows them
	program := profile.ProgramName(l.Exe, l.Comm)
	if l.Service == "" && program == "" && len(l.ContainerID) > short {
		l.Service = l.ContainerID[:short]
	}
	if l.Service == program {
		l.Service = ""
	}
}
