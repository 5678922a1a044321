// Package durable makes what happened to files outlast the loss of power.
package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SyncDir returns when what was created, renamed and removed in a directory is on disk. On file systems that cannot flush directories it is as they have it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
