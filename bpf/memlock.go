package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// ErrMemlock says that the memlock limit leaves no room for the maps, and could not be raised.
var ErrMemlock = errors.New("the memlock limit is too low for BPF maps on this kernel (they count against it before 5.11), and raising it takes CAP_SYS_RESOURCE: " +
	"hold that, or start with a higher limit (ulimit -l unlimited; LimitMEMLOCK=infinity in the systemd unit)")

// memlockMutex keeps those who change the limit apart.
var memlockMutex sync.Mutex

// probeMemcgAccounting makes a map while the limit is zero, for an instant. What
// else this process may lock meanwhile is refused, so probe before rings are mapped.
func probeMemcgAccounting(*btf.Cache) error {
	if err := tryMap(); err != nil {
		return err // it is not the limit that stops us
	}
	memlockMutex.Lock()
	defer memlockMutex.Unlock()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("memlock limit: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		return fmt.Errorf("lower the memlock limit: %w", err)
	}
	err := tryMap()
	if restoreErr := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); restoreErr != nil {
		return fmt.Errorf("restore the memlock limit: %w", restoreErr)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("BPF memory counts against the memlock limit: %w", ebpf.ErrNotSupported)
	}
	return err
}

func tryMap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	return m.Close()
}

// raiseMemlock lifts the limit, or raises it as far as this process may.
func raiseMemlock() {
	memlockMutex.Lock()
	defer memlockMutex.Unlock()
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) == nil {
		return
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) // where it is too low, the load says so
	}
}
