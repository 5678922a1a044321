package collect

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pilotlight/pilotlight/symbolizer/kallsyms"
)

// KernelNames names kernel addresses by /proc/kallsyms. Where that cannot be
// read, it names nothing and the rest goes on. One goroutine uses it.
type KernelNames struct {
	path     string
	file     *os.File // shows addresses as long as it is open, whatever rights we give up
	table    *kallsyms.Table
	retry    time.Time
	interval time.Duration
	changed  bool
	problem  error
	// meanwhile, if not nil, is called every gatherPause while the names are read.
	meanwhile func()
	// settled says that they are not read again, which takes a tenth of a second, and on a slow machine seconds.
	settled bool
}

// kallsymsInterval is how often an unknown address makes us read the table again: modules come and go.
const (
	kallsymsInterval = 30 * time.Second
	kallsymsMost     = 30 * time.Minute
)

// NewKernelNames reads the names; also (which may be nil) gets to see the text.
func NewKernelNames(also io.Writer) *KernelNames {
	k := &KernelNames{path: "/proc/kallsyms", interval: kallsymsInterval}
	k.read(also)
	return k
}

func (k *KernelNames) read(also io.Writer) {
	k.retry = time.Now().Add(k.interval)
	if err := k.open(); err != nil {
		k.problem = fmt.Errorf("kernel symbols: %w", err)
		return
	}
	var r io.Reader = k.file
	if k.meanwhile != nil {
		r = &attentive{r, k.meanwhile, time.Now()}
	}
	if also != nil {
		r = io.TeeReader(r, also)
	}
	table, err := kallsyms.Read(r)
	if err != nil {
		k.Close() // the next one may show more
		k.problem = fmt.Errorf("kernel symbols: %w", err)
		return
	}
	k.table, k.problem = table, nil
}

// attentive does something else every gatherPause between two reads.
type attentive struct {
	io.Reader
	meanwhile func()
	last      time.Time
}

func (a *attentive) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(a.last) > gatherPause {
		a.meanwhile()
		a.last = time.Now()
	}
	return a.Reader.Read(b)
}

// open opens the file or goes back to its beginning. The kernel decides at the opening
// whether it shows addresses, so that CAP_SYSLOG is needed only then.
func (k *KernelNames) open() error {
	if k.file != nil {
		_, err := k.file.Seek(0, io.SeekStart)
		return err
	}
	file, err := os.Open(k.path)
	if err != nil {
		return err
	}
	k.file = file
	return nil
}

// Close closes the file; the names stay. It may be called more than once.
func (k *KernelNames) Close() {
	if k.file != nil {
		_ = k.file.Close() // it was only read
		k.file = nil
	}
}

// Problem says why there are no kernel names, nil where there are.
func (k *KernelNames) Problem() error { return k.problem }

func (k *KernelNames) lookup(addr uint64) (kallsyms.Symbol, bool) {
	if k.table != nil {
		if s, ok := k.table.Lookup(addr); ok {
			return s, true
		}
	}
	if k.settled || time.Now().Before(k.retry) {
		return kallsyms.Symbol{}, false
	}
	k.read(nil)
	if k.table == nil {
		return kallsyms.Symbol{}, false
	}
	symbol, ok := k.table.Lookup(addr)
	if ok {
		k.interval = kallsymsInterval
		k.changed = true
	} else {
		k.interval = min(2*k.interval, kallsymsMost) // reading it takes a tenth of a second
	}
	return symbol, ok
}

// takeChanged says, once, that the table was read again and knows more.
func (k *KernelNames) takeChanged() bool {
	changed := k.changed
	k.changed = false
	return changed
}

// ksymbol brings in a BPF program or trampoline that came or went.
func (k *KernelNames) ksymbol(addr, size uint64, name string, gone bool) {
	switch {
	case k.table == nil:
	case gone:
		k.table.RemoveDynamic(addr)
	default:
		k.table.AddDynamic(addr, size, name)
	}
}

// bytes is the memory that the names take.
func (k *KernelNames) bytes() int {
	if k.table == nil {
		return 0
	}
	return k.table.Bytes()
}
