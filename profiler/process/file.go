package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// FileKey is what the kernel says of a mapped file. Generation tells apart files
// that had the same inode number one after the other; /proc/PID/maps does not have it.
type FileKey struct {
	Major, Minor uint32
	Inode        uint64
	Generation   uint64
}

// File is a file that some process has mapped executable, or what stands in
// the place of one: JIT memory, the vdso.
type File struct {
	Path string
	key  FileKey

	// id is that of the contents, 0 until the file was looked at.
	id      uint32
	checked uint64 // CLOCK_MONOTONIC ns; a process that mapped it later makes us look again
	failed  bpf.Reason
	retry   time.Time // a failure is final until then
	image   *Image
	pending chan readResult // a reading that took too long goes on, and is taken when it is done
	file    *descriptor     // open while it may still be needed
	size    int64
	used    time.Time
}

// descriptor is an open file. It is closed when the last of its users lets go of it: the File, and those whom Contents lent it to.
type descriptor struct {
	*os.File
	device uint64
	users  int
}

func (fs *Files) release(d *descriptor) {
	if d.users--; d.users == 0 {
		fs.shut(d)
	}
}

// shut closes a file. FUSE tells its server of that and waits for the answer. Where too many of the device wait already, Expire tries again; no
// further files of it are opened meanwhile.
func (fs *Files) shut(d *descriptor) {
	if fs.guard.do(d.device, func() { _ = d.Close() }) == errRefused { // it was only read: what Close says is of no interest
		fs.unclosed = append(fs.unclosed, d)
	}
}

// lent says that others than the File use it.
func (d *descriptor) lent() bool { return d != nil && d.users > 1 }

const vdsoPath = "[vdso]"

// Regular says that the file has a name and contents of its own.
func (f *File) Regular() bool { return regular(f.key, f.Path) }

// same says whether both have the same contents: a file that was read from /proc has another key than one that a record told of.
func (f *File) same(o *File) bool { return f == o || f.id != 0 && f.id == o.id }

func regular(key FileKey, path string) bool {
	return key.Inode != 0 && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//")
}

// device is the number of the file system that the file is on.
func (f *File) device() uint64 { return unix.Mkdev(f.key.Major, f.key.Minor) }

// VDSO says that it is the code that the kernel lends to every process.
func (f *File) VDSO() bool { return f.Path == vdsoPath }

// hasPlaces says that frames can lie in it: BPF tells of those by file and offset.
func (f *File) hasPlaces() bool { return f.Regular() || f.VDSO() }

// Image is what is known of one file's contents.
type Image struct {
	// ID is the same for equal contents, and never given twice.
	ID      uint32
	Mapping *profile.Mapping
	names   *symbolizer.Image
	guard   *guard
	device  uint64
	retry   time.Time // reading it hung: not before
}

// Names are what a file knows of one offset.
type Names struct {
	Frames []symbolizer.Frame // innermost first; none where nothing names it
	// Start is where the function that holds it starts, if it has no name; the offset itself where nothing tells that.
	Start objfile.FileOffset
}

// Lookup names an offset of the file. An error says that the file does not answer, for now: names of a Go binary, and the starts of functions that have no
// name, are read there; other names are in memory.
func (i *Image) Lookup(offset objfile.FileOffset) (Names, error) {
	if !i.Go() {
		if frames, ok := i.names.Lookup(offset); ok {
			return Names{Frames: frames}, nil
		}
	}
	if time.Now().Before(i.retry) {
		return Names{}, errHung
	}
	type answer struct {
		names Names
		err   error
	}
	result := make(chan answer, 1)
	err := i.guard.do(i.device, func() {
		names, err := i.read(offset)
		result <- answer{names, err}
	})
	if err != nil {
		i.retry = time.Now().Add(retryFailed)
		if err == errSlow {
			i.retry = time.Now().Add(retrySlow)
		}
		return Names{}, err
	}
	a := <-result
	return a.names, a.err
}

// read names an offset by the file.
func (i *Image) read(offset objfile.FileOffset) (Names, error) {
	if frames, ok := i.names.Lookup(offset); ok {
		return Names{Frames: frames}, nil
	}
	start, ok, err := i.names.FunctionStart(offset)
	if !ok {
		start = offset
	}
	return Names{Start: start}, err
}

// Address is the ELF virtual address of an offset.
func (i *Image) Address(offset objfile.FileOffset) uint64 {
	if a, ok := i.names.AddressOf(offset); ok {
		return uint64(a)
	}
	return uint64(offset)
}

// Go says whether the names come from a Go symbol table.
func (i *Image) Go() bool { return i.names.Kind()&symbolizer.KindGo != 0 }

type readResult struct {
	names *symbolizer.Image
	err   error
}

// Files holds every file that is mapped somewhere, each opened and read once
// whatever the number of processes.
type Files struct {
	byKey  map[FileKey]*File
	ids    map[fileID]uint32
	byID   map[uint32]*File
	nextID uint32
	open   map[*File]struct{}
	// unclosed are to be closed once their device answers.
	unclosed []*descriptor
	guard    *guard
	// identities guards what processes are asked of themselves: apart, so that it cannot keep files from being read.
	identities *guard
	vdso       *File
	// vdsoBytes are its contents, once they were read.
	vdsoBytes []byte
	memory    map[string]*File // what is mapped and is no file, by name
	pathBytes int              // of the names in byKey and memory

	// Stats counts what happened since the start.
	Stats FileStats
}

// FileStats of Files.
type FileStats struct {
	Opened     uint64 // files opened
	Read       uint64 // symbol tables read
	Failed     uint64 // files that could not be opened or read
	ImageBytes uint64 // memory that symbol tables hold now
}

const (
	// maxFiles bounds what is remembered of files: some 300 bytes each.
	maxFiles = 16384
	// maxPathBytes bounds their names, of which each may have 4 KB.
	maxPathBytes = 4 << 20
	// MaxOpen bounds descriptors and symbol tables; the least recently used are closed, and opened again when asked for.
	MaxOpen = 256
	// maxImageBytes bounds the memory of symbol tables: twice that of node, the largest in common use.
	maxImageBytes = 24 << 20
	// idleClose is how long a file that nobody asks for stays open: a guest must
	// not keep file systems busy.
	idleClose = 30 * time.Second
	// retryFailed is when a file that could not be opened is tried again.
	retryFailed = 10 * time.Second
	// closePatience is how long the end waits for a file of each device.
	closePatience = 50 * time.Millisecond
	// retrySlow is when one that was not read in time is asked for again, which costs nothing.
	retrySlow = time.Second
)

// NewFiles makes an empty set. Close it.
func NewFiles() *Files {
	identities := newGuard()
	identities.patience = identityPatience
	return &Files{identities: identities, byKey: make(map[FileKey]*File), ids: make(map[fileID]uint32), byID: make(map[uint32]*File), open: make(map[*File]struct{}), memory: make(map[string]*File), guard: newGuard()}
}

// Meanwhile sets what is called, every few milliseconds, while a file does not answer: until the file is given up the caller has nothing else from us.
func (fs *Files) Meanwhile(f func()) { fs.guard.meanwhile, fs.identities.meanwhile = f, f }

func (fs *Files) intern(key FileKey, path string) *File {
	if path == vdsoPath {
		if fs.vdso == nil {
			fs.vdso = &File{Path: path}
		}
		return fs.vdso
	}
	if key.Inode == 0 {
		return fs.internMemory(path)
	}
	if f := fs.byKey[key]; f != nil {
		return f // by whatever name: links to one file are one file
	}
	fs.makeRoom(path)
	f := &File{Path: path, key: key}
	fs.byKey[key] = f
	return f
}

// internMemory gives what stands for memory without a file; it has a name at most.
func (fs *Files) internMemory(path string) *File {
	f := fs.memory[path]
	if f == nil {
		fs.makeRoom(path)
		f = &File{Path: path}
		fs.memory[path] = f
	}
	return f
}

// makeRoom makes room for a file of a name. Files that are forgotten here live on in the mappings of processes.
func (fs *Files) makeRoom(path string) {
	if len(fs.byKey)+len(fs.memory) >= maxFiles || fs.pathBytes+len(path) > maxPathBytes {
		clear(fs.byKey)
		clear(fs.memory)
		fs.pathBytes = 0
	}
	fs.pathBytes += len(path)
}

// unseen says that a file was never looked at.
func (fs *Files) unseen(f *File) bool {
	return f.Regular() && f.id == 0 && f.file == nil && !time.Now().Before(f.retry)
}

// hold opens a file that was never seen; see Table.Hold.
func (fs *Files) hold(t *Table, pid int, m *Mapping) {
	f := m.File
	if !fs.openFile(t, []int{pid, os.Getpid()}, m) {
		f.failed = bpf.ReasonNone // the sample may find a better way
		f.retry = time.Time{}
	}
}

// ID gives the identity of a mapped file's contents, 0 and a reason where the
// file cannot be had.
func (fs *Files) ID(t *Table, p *Process, m *Mapping) (uint32, bpf.Reason) {
	f := m.File
	if f.VDSO() {
		return fs.vdsoID()
	}
	if f.id != 0 && m.Since > f.checked {
		fs.check(t, p, m)
	}
	if f.id != 0 {
		if fs.byID[f.id] == nil {
			fs.byID[f.id] = f
		}
		return f.id, bpf.ReasonNone
	}
	if f.failed != bpf.ReasonNone && time.Now().Before(f.retry) {
		return 0, f.failed
	}
	if !fs.openFile(t, t.viewers(p), m) {
		return 0, f.failed
	}
	return f.id, bpf.ReasonNone
}

// ByID gives the file whose contents have an id; nil where that is not known any more.
func (fs *Files) ByID(id uint32) *File { return fs.byID[id] }

// Contents are the bytes of a file, on loan: to be read on any goroutine until Release.
type Contents struct {
	*io.SectionReader
	// Device is the number of the file system: files of one hang together.
	Device uint64
	file   *descriptor // nil: it is no real file
	files  *Files
}

// Release gives the bytes back. It is called once, on the goroutine that uses the Files.
func (c *Contents) Release() {
	if c.file != nil {
		c.files.release(c.file)
	}
}

// Contents lends the bytes of a mapped file. They stay those that the file had when it was opened, whatever is at its path later.
func (fs *Files) Contents(t *Table, p *Process, m *Mapping) (Contents, bpf.Reason) {
	f := m.File
	if _, reason := fs.ID(t, p, m); reason != bpf.ReasonNone {
		return Contents{}, reason
	}
	if f.VDSO() {
		return Contents{SectionReader: io.NewSectionReader(bytes.NewReader(fs.vdsoBytes), 0, int64(len(fs.vdsoBytes)))}, bpf.ReasonNone
	}
	if f.file == nil && !fs.openFile(t, t.viewers(p), m) {
		return Contents{}, f.failed
	}
	f.used = time.Now()
	f.file.users++
	return Contents{io.NewSectionReader(f.file, 0, f.size), f.device(), f.file, fs}, bpf.ReasonNone
}

// check looks whether the file that a later process mapped still has the contents we know.
func (fs *Files) check(t *Table, p *Process, m *Mapping) {
	f := m.File
	f.checked = m.Since
	info := make(chan os.FileInfo, 1)
	if fs.guard.do(f.device(), func() { i, _ := os.Stat(mapFile(t.proc, p.PID, m)); info <- i }) != nil {
		return
	}
	i := <-info
	if i == nil {
		return // the process is gone; device, inode and generation agree, which must do
	}
	// Another inode is no answer: something else is mapped there by now.
	if id, err := identify(i); err == nil && id.inode == f.key.Inode && fs.ids[id] != f.id {
		fs.close(f)
		f.id = 0
	}
}

// openFile opens the file by whatever way still works; viewers are processes
// that can see it, the one that maps it first.
func (fs *Files) openFile(t *Table, viewers []int, m *Mapping) bool {
	f := m.File
	type opened struct {
		file *os.File
		size int64
		id   fileID
		err  error
	}
	result := make(chan opened, 1)
	var settled atomic.Bool // whose the file is: ours once it was handed over, else the worker's, who closes it
	err := fs.guard.do(f.device(), func() {
		var o opened
		var info os.FileInfo
		if o.file, o.err = openAny(t.proc, viewers, m); o.err == nil {
			if info, o.err = o.file.Stat(); o.err == nil {
				o.size = info.Size()
				o.id, o.err = identify(info)
			}
			if o.err != nil || !settled.CompareAndSwap(false, true) {
				_ = o.file.Close()
			}
		}
		result <- o
	})
	if err == errRefused || err != nil && settled.CompareAndSwap(false, true) {
		return fs.fail(f, bpf.ReasonFileUnreadable)
	}
	o := <-result
	if o.err != nil {
		t.log.Debug("cannot open a mapped file", "path", f.Path, "pid", viewers[0], "err", o.err)
		return fs.fail(f, bpf.ReasonFileGone)
	}
	fs.Stats.Opened++
	f.file, f.size, f.failed, f.used, f.checked = &descriptor{o.file, f.device(), 1}, o.size, bpf.ReasonNone, time.Now(), max(m.Since, f.checked)
	f.id = fs.idOf(o.id)
	fs.byID[f.id] = f
	fs.open[f] = struct{}{}
	fs.bound(f)
	return true
}

func (fs *Files) idOf(id fileID) uint32 {
	if n := fs.ids[id]; n != 0 {
		return n
	}
	if len(fs.ids) >= 4*maxFiles {
		clear(fs.ids)
		clear(fs.byID)
	}
	fs.nextID++
	fs.ids[id] = fs.nextID
	return fs.nextID
}

func (fs *Files) fail(f *File, reason bpf.Reason) bool {
	fs.Stats.Failed++
	f.failed, f.retry = reason, time.Now().Add(retryFailed)
	return false
}

// viewers are processes in whose view of the file system a path of p can be
// opened when p is gone: its parents, others of its mount namespace, then the agent itself.
func (t *Table) viewers(p *Process) []int {
	const most = 4
	pids := []int{p.PID}
	for parent := t.processes[p.ParentPID]; parent != nil && len(pids) < most; parent = t.processes[parent.ParentPID] {
		if parent.exited == 0 {
			pids = append(pids, parent.PID)
		}
	}
	for _, other := range t.processes {
		if len(pids) >= 2*most || p.mountNS == 0 {
			break
		}
		if other.mountNS == p.mountNS && other.exited == 0 {
			pids = append(pids, other.PID)
		}
	}
	return append(pids, os.Getpid())
}

func openAny(proc string, viewers []int, m *Mapping) (*os.File, error) {
	file, err := openMapped(proc, viewers[0], m)
	if err == nil {
		// The range may hold another file by now: mremap and munmap leave no record.
		if err = sameFile(file, m.File.key); err == nil {
			return file, nil
		}
		_ = file.Close()
	}
	for _, viewer := range viewers {
		var byPath *os.File
		if byPath, err = openInRoot(proc, viewer, m.File.Path, 0); err != nil {
			continue
		}
		if err = sameFile(byPath, m.File.key); err == nil {
			return byPath, nil
		}
		_ = byPath.Close()
	}
	return nil, err
}

// sameFile tells whether what stands at a path now is what was mapped. On
// file systems that show another device number to stat than to the kernel (btrfs,
// overlay) the inode number alone must do.
func sameFile(f *os.File, key FileKey) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	if stat.Ino == key.Inode && unix.Major(stat.Dev) == key.Major && unix.Minor(stat.Dev) == key.Minor {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	if stat.Ino == key.Inode && (fs.Type == unix.BTRFS_SUPER_MAGIC || fs.Type == unix.OVERLAYFS_SUPER_MAGIC) {
		return nil
	}
	return fmt.Errorf("%s is another file by now", f.Name())
}

// Image gives the names of a mapped file's contents, reading them on the first
// call; nil and a reason where that cannot be.
func (fs *Files) Image(t *Table, p *Process, m *Mapping) (*Image, bpf.Reason) {
	f := m.File
	if _, reason := fs.ID(t, p, m); reason != bpf.ReasonNone {
		return nil, reason
	}
	f.used = time.Now()
	if f.image != nil {
		return f.image, bpf.ReasonNone
	}
	if f.failed == bpf.ReasonFileUnreadable && time.Now().Before(f.retry) {
		return nil, f.failed
	}
	if f.file == nil && !fs.openFile(t, t.viewers(p), m) {
		return nil, f.failed
	}
	r, ok := fs.read(t, p, f)
	if !ok {
		fs.fail(f, bpf.ReasonFileUnreadable)
		if f.pending != nil {
			f.retry = time.Now().Add(retrySlow)
		}
		return nil, f.failed
	}
	if r.err != nil {
		t.log.Debug("cannot read a mapped file", "path", f.Path, "err", r.err)
		fs.fail(f, bpf.ReasonFileUnreadable)
		return nil, f.failed
	}
	image := &Image{ID: f.id, guard: fs.guard, device: f.device(), names: r.names, Mapping: describe(f.Path, r.names)}
	f.image = image
	fs.Stats.Read++
	fs.Stats.ImageBytes += uint64(r.names.Bytes())
	fs.bound(f)
	return image, bpf.ReasonNone
}

// read reads the names of an open file. One that takes too long is taken at a later call.
func (fs *Files) read(t *Table, p *Process, f *File) (readResult, bool) {
	if f.pending == nil {
		result := make(chan readResult, 1)
		file, size := f.file.File, f.size
		options := symbolizer.Options{Path: f.Path, OpenDebug: t.openDebug(p.PID)}
		err := fs.guard.do(f.device(), func() {
			names, err := symbolizer.Open(file, size, options)
			result <- readResult{names, err}
		})
		if err == errHung || err == errSlow {
			f.pending = result
		}
		if err != nil {
			return readResult{}, false
		}
		return <-result, true
	}
	select {
	case r := <-f.pending:
		f.pending = nil
		return r, true
	default:
		return readResult{}, false
	}
}

func describe(path string, names *symbolizer.Image) *profile.Mapping {
	m := &profile.Mapping{
		Path:         path,
		BuildID:      names.BuildID(),
		EndsHash:     names.EndsHash(),
		HasFunctions: names.HasSymbols(),
		HasLines:     names.Kind()&symbolizer.KindGo != 0,
	}
	if start, size, off, ok := names.Text(); ok {
		m.Start, m.Limit, m.Offset = uint64(start), uint64(start)+size, uint64(off)
	}
	return m
}

// bound closes the least recently used files beyond the bounds, but not f.
func (fs *Files) bound(f *File) {
	for len(fs.open) > MaxOpen || fs.Stats.ImageBytes > maxImageBytes {
		var oldest *File
		for o := range fs.open {
			if o != f && !o.file.lent() && (oldest == nil || o.used.Before(oldest.used)) {
				oldest = o
			}
		}
		if oldest == nil {
			return
		}
		fs.close(oldest)
	}
}

// Expire closes files that nobody asked for lately.
func (fs *Files) Expire(now time.Time) {
	unclosed := fs.unclosed
	fs.unclosed = nil
	for _, d := range unclosed {
		fs.shut(d)
	}
	for f := range fs.open {
		if !f.file.lent() && now.Sub(f.used) > idleClose {
			fs.close(f)
		}
	}
}

func (fs *Files) close(f *File) {
	f.pending = nil
	if f.image != nil {
		fs.Stats.ImageBytes -= uint64(f.image.names.Bytes())
		f.image = nil
	}
	if f.file != nil {
		fs.release(f.file)
		f.file = nil
	}
	delete(fs.open, f)
}

// Close closes all files, those that do not answer for as long as the process lives excepted.
func (fs *Files) Close() {
	fs.guard.patience = closePatience
	for f := range fs.open {
		fs.close(f)
	}
	fs.guard.close()
	fs.identities.close()
}

// vdsoID reads the vdso once, from this process: all 64-bit processes have the same.
func (fs *Files) vdsoID() (uint32, bpf.Reason) {
	f := fs.vdso
	if f.id != 0 || f.failed != bpf.ReasonNone {
		return f.id, f.failed
	}
	text, names, err := readVDSO()
	if err != nil {
		f.failed, f.retry = bpf.ReasonFileUnreadable, time.Now().Add(365*24*time.Hour)
		return 0, f.failed
	}
	fs.nextID++
	f.id = fs.nextID
	fs.byID[f.id], fs.vdsoBytes = f, text
	f.image = &Image{ID: f.id, Mapping: describe(vdsoPath, names), names: names, guard: fs.guard}
	return f.id, bpf.ReasonNone
}

func readVDSO() ([]byte, *symbolizer.Image, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, nil, fmt.Errorf("vdso: %w", err)
	}
	defer maps.Close()
	entries, err := readMaps(maps)
	if err != nil {
		return nil, nil, fmt.Errorf("vdso: %w", err)
	}
	for _, e := range entries {
		if e.path != vdsoPath {
			continue
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, nil, fmt.Errorf("vdso: %w", err)
		}
		defer mem.Close()
		image := make([]byte, e.mapping.End-e.mapping.Start)
		if _, err := io.ReadFull(io.NewSectionReader(mem, int64(e.mapping.Start), int64(len(image))), image); err != nil {
			return nil, nil, fmt.Errorf("vdso: %w", err)
		}
		names, err := symbolizer.Open(bytes.NewReader(image), int64(len(image)), symbolizer.Options{})
		if err != nil {
			return nil, nil, fmt.Errorf("vdso: %w", err)
		}
		return image, names, nil
	}
	return nil, nil, fmt.Errorf("vdso: not mapped")
}
