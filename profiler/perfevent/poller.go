package perfevent

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Poller waits for any of a set of descriptors. It is an epoll instance that itself
// waits in Go's poller, so a goroutine that waits holds no thread. One
// goroutine may Wait; Add may be called beside it.
type Poller struct {
	file *os.File
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
	return &Poller{file: os.NewFile(uintptr(fd), "epoll")}, nil
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

// Wait returns when a descriptor woke (true) or the time is over (false).
func (p *Poller) Wait(timeout time.Duration) (woken bool, err error) {
	if err := p.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return false, fmt.Errorf("epoll: %w", err)
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("epoll: %w", err)
	}
	var events [16]unix.EpollEvent
	var waitErr error
	err = raw.Read(func(epoll uintptr) bool {
		n, err := unix.EpollWait(int(epoll), events[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			waitErr = err
			return true
		}
		woken = n > 0
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

// Close ends a Wait that is under way.
func (p *Poller) Close() error { return p.file.Close() }
