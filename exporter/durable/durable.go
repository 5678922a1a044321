// Package durable makes what happened to files outlast the loss of power.
package durable

import (
	"errors"
	"os"
)

// SyncDir returns when what was created, renamed and removed in a directory is on disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
