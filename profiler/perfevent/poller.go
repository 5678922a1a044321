package perfevent

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Poller waits for any of a set of descriptors. It is an epoll instance that itself
// waits in Go's poller, so a goroutine that waits holds no thread. One
// goroutine may Wait; Add, Interrupt and Close may be called beside it, Interrupt after Close too.
type Poller struct {
	file *os.File
	mu   sync.Mutex // an Interrupt that comes late must not write to whatever has the number by then
	wake int        // an eventfd, for Interrupt; -1 after Close
}

// NewPoller makes an empty Poller.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create an epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll instance: %w", err)
	}
	p := &Poller{file: os.NewFile(uintptr(fd), "epoll")}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("create an eventfd: %w", err), p.file.Close())
	}
	if err := p.Add(p.wake); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Interrupt makes the Wait that is under way, or the next one, return at once.
func (p *Poller) Interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Fails only when the counter is full: then a wake-up is pending anyway. Or after Close.
	_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Add waits for fd too, until it is closed. Edge-triggered: what wakes is the kernel's wake-up, not
// that data is waiting, because the readers look by the clock and let data gather.
func (p *Poller) Add(fd int) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	var ctlErr error
	err = raw.Control(func(epoll uintptr) {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		ctlErr = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &event)
	})
	if err := errors.Join(err, ctlErr); err != nil {
		return fmt.Errorf("epoll: add descriptor %d: %w", fd, err)
	}
	return nil
}

// Wait returns when a descriptor woke (true) or the time is over (false). Perf
// events that woke before this call may have spent that on Go's poller: ready,
// if not nil, says whether their rings hold something, and is asked once, when
// no later wake-up can be missed any more.
func (p *Poller) Wait(timeout time.Duration, ready func() bool) (woken bool, err error) {
	if err := p.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return false, fmt.Errorf("epoll: %w", err)
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("epoll: %w", err)
	}
	var events [16]unix.EpollEvent
	var waitErr error
	waited := false
	err = raw.Read(func(epoll uintptr) bool {
		n, err := unix.EpollWait(int(epoll), events[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			waitErr = err
			return true
		}
		// Being called again is the wake-up. The descriptors may deny it: a perf event is
		// ready for the first who asks, and Go's poller asked before us.
		woken = n > 0 || waited || ready != nil && ready()
		waited = true
		return woken
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err := errors.Join(err, waitErr); err != nil {
		return false, fmt.Errorf("epoll: %w", err)
	}
	return woken, nil
}

// Close ends a Wait that is under way. It may be called more than once.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake < 0 {
		return nil
	}
	wake := p.wake
	p.wake = -1
	return errors.Join(p.file.Close(), unix.Close(wake))
}
