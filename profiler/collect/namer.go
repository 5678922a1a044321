package collect

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/publish"
	"github.com/pilotlight/pilotlight/profiler/recent"
	"github.com/pilotlight/pilotlight/symbolizer"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// namer turns keys of stacks into stacks of named locations, each once.
//
//	key -> frames (read from stack_traces once) -> (file, offset) -> location
//
// A raw stack is placed again when its process's mappings changed since;
// its frames are kept for that.
type namer struct {
	source interface {
		AppendStack(frames []bpf.Frame, key uint64) ([]bpf.Frame, error)
	}
	processes *process.Table
	files     *process.Files
	publisher *publish.Publisher
	kernel    *KernelNames

	users     recent.Cache[userKey, userStack]
	kernels   recent.Cache[uint64, *profile.Stack]
	locations recent.Cache[locationKey, *profile.Location]
	functions recent.Cache[functionKey, *profile.Function]
	stacks    recent.Cache[string, *profile.Stack]
	memory    recent.Cache[memoryKey, *profile.Location]
	// copies are stacks that were copied and whose samples were not named yet.
	copies map[copyKey]bpf.CopiedStack
	// compare, if not nil, is called with every stack that was walked twice.
	compare func(*Comparison)
	// mappings are those of the kernel, its modules, and files that could not be read.
	mappings recent.Cache[string, *profile.Mapping]

	// Reused by each call.
	frames []bpf.Frame
	placed []*profile.Location

	stats NamerStats
}

// NamerStats count the work of naming.
type NamerStats struct {
	StacksNew    uint64 // stacks read from stack_traces and named
	StacksKnown  uint64 // samples whose stack was known
	StacksAgain  uint64 // stacks placed again because mappings changed
	StacksCopied uint64 // stacks that were copied and walked here
	StacksLost   uint64 // stacks that were evicted before they were read
	LocationsNew uint64 // addresses looked up
	LocationsHit uint64 // addresses known from another stack
	NameNanos    uint64 // time spent on all of it
}

// userKey is the key of a user stack, and why its walk ended.
type userKey struct {
	key    uint64
	reason uint8
}

type userStack struct {
	frames []bpf.Frame
	stack  *profile.Stack
	// anybodys: all frames are native ones, which mean the same in every process.
	anybodys bool
	process  *process.Process // else; nil: the stack is that of an earlier time
	version  uint32
	// until is when the stack is placed again although no mapping changed: a
	// JIT may have replaced its code, a file may be readable by then. 0: never.
	until uint64
}

// unsettled is how long a name stands that may change without notice.
const unsettled = time.Second

type locationKey struct {
	file   uint32
	offset uint64
}

type functionKey struct {
	file uint32 // 0: the kernel
	name string
}

// Bounds in bytes, for each of two generations: 26 MB when all are full, which takes stacks a thousand frames deep or names
// of a thousand letters. A host shows a fraction of that.
const (
	maxStackBytes    = 3 << 20 // of the frames that were read, and again of the locations they became
	maxKernelBytes   = 1 << 20
	maxLocationBytes = 2 << 20
	maxFunctionBytes = 2 << 20
	maxMappingBytes  = 256 << 10
	// entryBytes is what an entry takes beside what is in it.
	entryBytes = 96
)

func sizeOfStack[K comparable](_ K, s *profile.Stack) int { return entryBytes + 16*len(s.Locations) }

func sizeOfLocation[K comparable](_ K, l *profile.Location) int {
	return 2*entryBytes + 16*len(l.Lines)
}

// maxName bounds the length of a name that is kept: demangling refuses longer ones anyway.
const maxName = 4096

func newNamer(processes *process.Table, files *process.Files, publisher *publish.Publisher, kernel *KernelNames) *namer {
	return &namer{
		processes: processes,
		files:     files,
		publisher: publisher,
		kernel:    kernel,
		users: recent.New(maxStackBytes, func(_ userKey, s userStack) int {
			return entryBytes + 8*len(s.frames) + sizeOfStack(0, s.stack)
		}),
		kernels:   newKernelCache(),
		locations: recent.New(maxLocationBytes, sizeOfLocation[locationKey]),
		functions: recent.New(maxFunctionBytes, func(k functionKey, f *profile.Function) int { return entryBytes + len(k.name) + len(f.File) }),
		stacks:    recent.New(maxStackBytes, func(k string, s *profile.Stack) int { return len(k) + sizeOfStack(k, s) }),
		memory: recent.New(maxLocationBytes, func(k memoryKey, l *profile.Location) int {
			return len(k.name) + sizeOfLocation(k, l)
		}),
		mappings: recent.New(maxMappingBytes, func(path string, _ *profile.Mapping) int { return entryBytes + len(path) }),
		copies:   make(map[copyKey]bpf.CopiedStack),
	}
}

func newKernelCache() recent.Cache[uint64, *profile.Stack] {
	return recent.New(maxKernelBytes, sizeOfStack[uint64])
}

// missing are stacks of which only the reason is known.
var missing = func() (stacks [bpf.ReasonCount]*profile.Stack) {
	for r := range stacks {
		stacks[r] = &profile.Stack{Truncated: bpf.Reason(r).String()}
	}
	return stacks
}()

// read gets the frames of a stack; the slice is the namer's, valid until the next call.
func (n *namer) read(key uint64) ([]bpf.Frame, error) {
	var err error
	n.frames, err = n.source.AppendStack(n.frames[:0], key)
	if errors.Is(err, bpf.ErrStackEvicted) {
		n.stats.StacksLost++
	}
	return n.frames, err
}

// copyKey is what a copied stack and its sample have in common.
type copyKey struct {
	time uint64
	cpu  uint32
}

func copyKeyOf(s *bpf.Sample) copyKey { return copyKey{s.TimeNs, uint32(s.Cpu)} }

// keepCopy keeps a stack for its sample, which was drained before.
func (n *namer) keepCopy(c bpf.CopiedStack) {
	c.Stack, c.Links = slices.Clone(c.Stack), slices.Clone(c.Links)
	n.copies[copyKey{c.TimeNs, c.CPU}] = c
}

// forgetCopies drops the copies of samples before a time, which were all seen. Copies are fetched after samples, so there are some of later ones.
func (n *namer) forgetCopies(before uint64) {
	maps.DeleteFunc(n.copies, func(k copyKey, _ bpf.CopiedStack) bool { return k.time < before })
}

// walkCopy walks and names a stack that was copied, because the programs knew its code not yet.
func (n *namer) walkCopy(p *process.Process, s *bpf.Sample, c *bpf.CopiedStack) *profile.Stack {
	delete(n.copies, copyKeyOf(s))
	if p == nil || !p.Known() {
		return missing[bpf.ReasonProcessUnknown]
	}
	n.stats.StacksCopied++
	var reason bpf.Reason
	n.frames, reason = n.publisher.Walk(p, c, n.frames[:0])
	stack, _ := n.placeWalk(p, n.frames, s, reason)
	return stack
}

// userStack names the user side of a sample. P is nil where nothing is known of the process.
func (n *namer) userStack(p *process.Process, s *bpf.Sample) *profile.Stack {
	reason := bpf.Reason(s.UserReason)
	if n.compare != nil {
		n.compareWalks(p, s)
	}
	if s.Flags&uint32(bpf.SampleCopy) != 0 && (s.UserStack == 0 || p != nil && !n.publisher.Current(p, s.Generation)) {
		if c, ok := n.copies[copyKeyOf(s)]; ok {
			return n.walkCopy(p, s, &c)
		}
		if s.UserStack == 0 {
			return missing[bpf.ReasonBadRecord] // it was sent: what came was none
		}
	}
	if s.UserStack == 0 {
		if reason == bpf.ReasonNone {
			return nil
		}
		return missing[reason]
	}
	key := userKey{s.UserStack, s.UserReason}
	known, ok := n.users.Get(key)
	// A record that is still being written holds up those behind it: such a sample may be from before a change.
	current := p != nil && s.TimeNs >= p.Changed()
	if ok && (known.until == 0 || s.TimeNs < known.until) &&
		(known.anybodys && n.holds(p, s, known.frames) || current && known.process == p && known.version == p.Version()) {
		n.stats.StacksKnown++
		return known.stack
	}
	frames := known.frames
	if ok {
		n.stats.StacksAgain++
	} else {
		read, err := n.read(s.UserStack)
		if err != nil {
			return missing[bpf.ReasonStackEvicted]
		}
		n.stats.StacksNew++
		frames = slices.Clone(read)
	}
	if s.Generation != 0 && !n.holds(p, s, frames) {
		return n.staleStack(p, s, frames[0])
	}
	place := n.placeUser
	if s.Generation != 0 {
		place = n.placeWalk
	}
	stack, settled := place(p, frames, s, reason)
	entry := userStack{frames: frames, stack: stack}
	entry.anybodys = !slices.ContainsFunc(frames, func(f bpf.Frame) bool { return f.Kind() != bpf.FrameNative })
	if current {
		entry.process, entry.version = p, p.Version()
	}
	if !settled {
		entry.until = s.TimeNs + uint64(unsettled)
	}
	if p != nil || entry.anybodys {
		n.users.Put(key, entry)
	}
	return stack
}

// holds says whether the process had the code of native frames mapped when the sample was taken: the walk
// went by the mappings that had been published by then.
func (n *namer) holds(p *process.Process, s *bpf.Sample, frames []bpf.Frame) bool {
	if p == nil || n.publisher.Current(p, s.Generation) {
		return true
	}
	for _, f := range frames {
		if f.Kind() != bpf.FrameNative {
			// Memory without a file then; a lone address is where the thread was, whatever is there.
			if m, _ := n.processes.Find(p, process.Address(f.Address()), s.TimeNs); len(frames) > 1 && (m == nil || m.File.Regular()) {
				return false
			}
			continue
		}
		file := n.files.ByID(f.File())
		offset := objfile.FileOffset(f.Offset())
		if file == nil || p.Holding(file, offset, s.TimeNs) == nil || p.Moved(file, offset, n.publisher.Listed(p, s.Generation), s.TimeNs) {
			return false
		}
	}
	return true
}

// staleStack is what is left of a walk that went by mappings which were replaced before the sample: where the thread was. The address
// is that of the innermost frame, whatever file it was taken for.
func (n *namer) staleStack(p *process.Process, s *bpf.Sample, leaf bpf.Frame) *profile.Stack {
	address := process.Address(leaf.Address())
	if leaf.Kind() == bpf.FrameNative {
		offset := objfile.FileOffset(leaf.Offset())
		file := n.files.ByID(leaf.File())
		if file == nil {
			return missing[bpf.ReasonStaleMapping]
		}
		m := p.Held(file, offset)
		if m == nil {
			return missing[bpf.ReasonStaleMapping]
		}
		address = m.AddressOf(offset)
	}
	l, _ := n.placeFrame(p, address, s)
	if l == nil {
		return missing[bpf.ReasonStaleMapping]
	}
	n.placed = append(n.placed[:0], l)
	return n.internStack(n.placed, bpf.ReasonStaleMapping, false)
}

// placeWalk places and names the frames of a walk by unwind tables, each of which is an address inside of its instruction. Settled says
// that the answer will be the same next time, unless mappings change.
func (n *namer) placeWalk(p *process.Process, frames []bpf.Frame, s *bpf.Sample, reason bpf.Reason) (stack *profile.Stack, settled bool) {
	n.placed, settled = n.placed[:0], true
	for i, f := range frames {
		var l *profile.Location
		if f.Kind() == bpf.FrameNative {
			l = n.placeNative(p, f, s)
		} else {
			var why bpf.Reason
			address := process.Address(f.Address())
			if l, why = n.placeFrame(p, address, s); l == nil {
				l = n.unplaced(p, address, why)
			}
		}
		settled = n.take(l, i) && settled
	}
	if end := schedulerEnd(n.placed); end > 0 {
		n.placed, reason = n.placed[:end], bpf.ReasonNone
	}
	if len(n.placed) > 0 && n.placed[len(n.placed)-1].Entry() {
		reason = bpf.ReasonNone // whatever its rule says: nobody called it
	}
	return n.internStack(n.placed, reason, reason == bpf.ReasonNone), settled
}

// schedulerEnd gives the number of a stack's frames where Go's scheduler runs because a goroutine gave way as it entered a function; 0: it is none
// such. morestack, the outermost of them, is left to the goroutine that the thread has, and that may be the next one already.
func schedulerEnd(locations []*profile.Location) int {
	schedules := false
	for i, l := range locations {
		if l.Kind != profile.FrameGo {
			continue
		}
		switch strings.TrimSuffix(l.Lines[len(l.Lines)-1].Function.Name, ".abi0") {
		case "runtime.schedule":
			schedules = true
		case "runtime.morestack":
			if schedules {
				return i + 1
			}
			return 0
		}
	}
	return 0
}

// placeNative finds the location of a place in a file.
func (n *namer) placeNative(p *process.Process, f bpf.Frame, s *bpf.Sample) *profile.Location {
	id, offset := f.File(), objfile.FileOffset(f.Offset())
	if l, ok := n.locations.Get(locationKey{id, uint64(offset)}); ok {
		n.stats.LocationsHit++
		return l
	}
	file := n.files.ByID(id)
	if file == nil || p == nil { // without the process it cannot be said that the file was there
		reason := bpf.ReasonFileGone
		if p == nil {
			reason = bpf.ReasonProcessUnknown
		}
		return n.inMemory(p, profile.FrameNative, nil, f.Offset(), fmt.Sprintf("[unknown+%#x]", f.Offset()), reason)
	}
	m := p.Holding(file, offset, s.TimeNs)
	if m == nil {
		m = &process.Mapping{File: file} // it will do, as long as the file is open
	}
	return n.placeInFile(p, m, offset)
}

// unplaced stands for an address that no mapping holds.
func (n *namer) unplaced(p *process.Process, address process.Address, why bpf.Reason) *profile.Location {
	return n.inMemory(p, profile.FrameNative, nil, uint64(address), fmt.Sprintf("[unmapped+%#x]", uint64(address)), why)
}

// placeUser places and names frames of the kernel's walk by frame pointers, return addresses all but the first. Settled says that the answer will be
// the same next time, unless mappings change.
func (n *namer) placeUser(p *process.Process, frames []bpf.Frame, s *bpf.Sample, reason bpf.Reason) (stack *profile.Stack, settled bool) {
	n.placed, settled = n.placed[:0], true
	main := -1 // where it was found
	for i, f := range frames {
		address := process.Address(f.Address())
		if address == 0 {
			break // the outermost frame's return address: a true end
		}
		if i > 0 {
			address-- // into the call
		}
		l, why := n.placeFrame(p, address, s)
		if l == nil && main >= 0 {
			reason = bpf.ReasonNone // nothing that matters is missing
			break
		}
		if l == nil && i > 0 && why != bpf.ReasonProcessUnknown {
			// A walk by frame pointers through code that keeps none ends in
			// nonsense: what lies beyond is not the caller.
			reason = why
			break
		}
		if l == nil {
			l = n.unplaced(p, address, why)
		}
		settled = n.take(l, i) && settled
		if l.Entry() || main >= 0 {
			// Code before main keeps no frame pointer: the walk may go on into nonsense.
			reason = bpf.ReasonNone
			break
		}
		if l.Main() {
			main = i
		}
	}
	return n.internStack(n.placed, reason, false), settled
}

// take takes the location of a stack's frame i, and says whether it will be the same next time, unless mappings change.
func (n *namer) take(l *profile.Location, i int) (settled bool) {
	if !l.Wrapper || i == 0 { // runtime/pprof does not show it either
		n.placed = append(n.placed, l)
	}
	return (l.Unnamed == "" || l.Unnamed == noSymbol) && l.Kind != profile.FrameJIT
}

var noSymbol = bpf.ReasonNoSymbol.String()

// placeFrame finds the location of one user address; nil and the reason where no mapping holds it.
func (n *namer) placeFrame(p *process.Process, address process.Address, s *bpf.Sample) (*profile.Location, bpf.Reason) {
	if p == nil || !p.Known() {
		return nil, bpf.ReasonProcessUnknown
	}
	m, stale := n.processes.Find(p, address, s.TimeNs)
	if m == nil && s.Flags&uint32(bpf.SampleKernelMode) != 0 {
		// In an exec the old program is gone from memory, but its registers stand until the new one runs.
		m = p.FindBeforeExec(address, s.TimeNs)
	}
	switch {
	case m == nil && stale:
		return nil, bpf.ReasonStaleMapping
	case m == nil:
		return nil, bpf.ReasonUnmappedPC
	case m.File.Regular() || m.File.VDSO():
		return n.placeInFile(p, m, m.FileOffset(address)), bpf.ReasonNone
	}
	return n.placeInMemory(p, m, address), bpf.ReasonNone
}

func (n *namer) placeInFile(p *process.Process, m *process.Mapping, offset objfile.FileOffset) *profile.Location {
	id, reason := n.files.ID(n.processes, p, m)
	if reason == bpf.ReasonNone {
		if l, ok := n.locations.Get(locationKey{id, uint64(offset)}); ok {
			n.stats.LocationsHit++
			return l
		}
	}
	n.stats.LocationsNew++
	var image *process.Image
	if reason == bpf.ReasonNone {
		image, reason = n.files.Image(n.processes, p, m)
	}
	if image == nil {
		// A JIT may run from a file it made itself, which is no ELF file.
		if name, ok := n.processes.JITName(p, m.AddressOf(offset)); ok {
			return n.jitLocation(p, m.AddressOf(offset), name)
		}
		return n.inMemory(p, profile.FrameNative, n.mapping(m.File.Path), uint64(offset), placeName(m.File, offset), reason)
	}
	names, err := image.Lookup(offset)
	if err != nil {
		return n.inMemory(p, profile.FrameNative, image.Mapping, image.Address(offset), placeName(m.File, offset), bpf.ReasonFileUnreadable)
	}
	l := &profile.Location{Kind: profile.FrameNative, Mapping: image.Mapping, Address: image.Address(offset)}
	if frames := names.Frames; len(frames) == 0 {
		l.Unnamed = noSymbol
		l.Lines = []profile.Line{{Function: n.function(id, placeName(m.File, names.Start), "", 0)}}
	} else {
		if frames[0].File != "" && image.Go() {
			l.Kind = profile.FrameGo
		}
		l.Lines, l.Wrapper = n.lines(id, frames), frames[0].Wrapper
	}
	n.locations.Put(locationKey{id, uint64(offset)}, l)
	return l
}

// placeName stands for the name of code that has none: where in its file its function starts, as far as that is known.
func placeName(f *process.File, offset objfile.FileOffset) string {
	return fmt.Sprintf("[%s+%#x]", path.Base(f.Path), uint64(offset))
}

func (n *namer) lines(file uint32, frames []symbolizer.Frame) []profile.Line {
	lines := make([]profile.Line, len(frames))
	for i, f := range frames {
		lines[i] = profile.Line{Line: f.Line, Function: n.function(file, f.Function, f.File, f.StartLine)}
	}
	return lines
}

func (n *namer) function(file uint32, name, source string, start int) *profile.Function {
	if len(name) > maxName {
		name = strings.Clone(name[:maxName])
	}
	key := functionKey{file, name}
	if f, ok := n.functions.Get(key); ok && f.File == source && f.StartLine == start {
		return f
	}
	f := &profile.Function{Name: name, File: source, StartLine: start}
	n.functions.Put(key, f)
	return f
}

// placeInMemory names code that a program made at run time.
func (n *namer) placeInMemory(p *process.Process, m *process.Mapping, address process.Address) *profile.Location {
	n.stats.LocationsNew++
	if name, ok := n.processes.JITName(p, address); ok {
		return n.jitLocation(p, address, name)
	}
	name := m.File.Path
	if name == "" || name[0] != '[' {
		name = "[anon"
	} else {
		name = name[:len(name)-1]
	}
	return n.inMemory(p, profile.FrameJIT, nil, uint64(address), fmt.Sprintf("%s+%#x]", name, uint64(address)), bpf.ReasonNoSymbol)
}

func (n *namer) jitLocation(p *process.Process, address process.Address, name string) *profile.Location {
	return n.inMemory(p, profile.FrameJIT, nil, uint64(address), name, bpf.ReasonNone)
}

// inMemory gives the location of an address that belongs to one process, or has no name: one pointer
// for each address and name, so that equal stacks stay equal.
func (n *namer) inMemory(p *process.Process, kind profile.FrameKind, m *profile.Mapping, address uint64, name string, reason bpf.Reason) *profile.Location {
	key := memoryKey{mapping: m, address: address, name: name, reason: reason}
	if p != nil {
		key.pid = p.PID
	}
	if l, ok := n.memory.Get(key); ok {
		return l
	}
	l := &profile.Location{
		Kind: kind, Mapping: m, Address: address,
		Lines: []profile.Line{{Function: n.function(memoryFunctions, name, "", 0)}},
	}
	if reason != bpf.ReasonNone {
		l.Unnamed = reason.String()
	}
	n.memory.Put(key, l)
	return l
}

type memoryKey struct {
	pid     int
	mapping *profile.Mapping
	address uint64
	name    string
	reason  bpf.Reason
}

// memoryFunctions keeps names from processes' memory apart from those of files, whose ids count from 1.
const memoryFunctions = 1 << 31

// kernelStack names the kernel side of a sample.
func (n *namer) kernelStack(s *bpf.Sample) *profile.Stack {
	reason := bpf.Reason(s.KernelReason)
	if s.KernelStack == 0 {
		if reason == bpf.ReasonNone {
			return nil
		}
		return missing[reason]
	}
	if stack, ok := n.kernels.Get(s.KernelStack); ok {
		n.stats.StacksKnown++
		return stack
	}
	frames, err := n.read(s.KernelStack)
	if err != nil {
		return missing[bpf.ReasonStackEvicted]
	}
	n.stats.StacksNew++
	n.placed = n.placed[:0]
	for i, f := range frames {
		address := f.Address()
		if i > 0 {
			address--
		}
		n.placed = append(n.placed, n.kernelLocation(address))
	}
	stack := n.internStack(n.placed, reason, false)
	if n.kernel.takeChanged() {
		n.forgetKernel() // the table was read again: what was known may mean something else
	} else if !slices.ContainsFunc(n.placed, func(l *profile.Location) bool { return l.Unnamed != "" }) {
		n.kernels.Put(s.KernelStack, stack)
	}
	return stack
}

func (n *namer) kernelLocation(address uint64) *profile.Location {
	key := locationKey{0, address}
	if l, ok := n.locations.Get(key); ok {
		n.stats.LocationsHit++
		return l
	}
	n.stats.LocationsNew++
	symbol, ok := n.kernel.lookup(address)
	if !ok { // not for ever: its module may be in the next reading of the table
		return n.inMemory(nil, profile.FrameKernel, n.module(""), address, fmt.Sprintf("[kernel+%#x]", address), bpf.ReasonNoSymbol)
	}
	l := &profile.Location{
		Kind: profile.FrameKernel, Mapping: n.module(symbol.Module), Address: address,
		Lines: []profile.Line{{Function: n.function(0, symbol.Name, "", 0)}},
	}
	n.locations.Put(key, l)
	return l
}

func (n *namer) module(name string) *profile.Mapping {
	if name == "" {
		return n.mapping("[kernel.kallsyms]")
	}
	return n.mapping("[" + name + "]")
}

func (n *namer) mapping(path string) *profile.Mapping {
	if m, ok := n.mappings.Get(path); ok {
		return m
	}
	m := &profile.Mapping{Path: path, HasFunctions: path[0] == '['}
	n.mappings.Put(path, m)
	return m
}

// forgetKernel drops kernel names, which may mean something else by now.
func (n *namer) forgetKernel() {
	n.kernels = newKernelCache()
	n.locations.Drop(func(k locationKey) bool { return k.file == 0 })
}

// internStack gives one pointer for equal stacks, whatever process they come from.
func (n *namer) internStack(locations []*profile.Location, reason bpf.Reason, root bool) *profile.Stack {
	key := append(n.stackKey(locations), byte(reason))
	if root {
		key = append(key, 1)
	}
	if s, ok := n.stacks.Get(unsafe.String(unsafe.SliceData(key), len(key))); ok {
		return s
	}
	s := &profile.Stack{Locations: slices.Clone(locations), Root: root}
	if reason != bpf.ReasonNone {
		s.Truncated = reason.String()
	}
	n.stacks.Put(string(key), s)
	return s
}

// stackKey is the locations' addresses in memory: equal locations are one pointer, and a stack
// that is a key keeps its locations alive.
func (n *namer) stackKey(locations []*profile.Location) []byte {
	const word = int(unsafe.Sizeof(uintptr(0)))
	if len(locations) == 0 {
		return nil
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(locations))), len(locations)*word)
	return append(make([]byte, 0, len(raw)+2), raw...)
}
