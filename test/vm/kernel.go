package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A kernel is one of the matrix: what Debian has of a version for an architecture.
type kernel struct {
	version      string // such as "6.1"
	architecture string // as Go names it
	// pattern is of the package's name. From 7.3 on the linux-image package is empty and linux-binary holds the kernel.
	pattern string
	role    role
}

// role says which tests a kernel runs besides those that each does.
type role int

const (
	middle role = iota
	end         // the oldest and the newest of an architecture
	usual       // what most hosts run
)

// matrix are the oldest kernels that are supported (5.10, and 6.1 on arm64), the newest there is, and what most hosts run. Those that
// take longest come first, so that two machines at a time end together.
var matrix = []kernel{
	{"7.3", "amd64", `linux-binary-7\.3\.[0-9.+a-z-]*-cloud-amd64`, end},
	{"5.10", "amd64", `linux-image-5\.10\.[0-9.+a-z-]*-cloud-amd64`, end},
	{"6.1", "arm64", `linux-image-6\.1\.[0-9.+a-z-]*-cloud-arm64`, end},
	{"6.12", "amd64", `linux-image-6\.12\.[0-9.+a-z-]*-cloud-amd64`, usual},
	{"6.1", "amd64", `linux-image-6\.1\.[0-9.+a-z-]*-cloud-amd64`, middle},
	{"6.12", "arm64", `linux-image-6\.12\.[0-9.+a-z-]*-cloud-arm64`, middle},
}

func (k kernel) String() string { return k.version + "-" + k.architecture }

// cacheFolder keeps packages between runs and checkouts.
func cacheFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep kernels: %w", err)
	}
	return filepath.Join(cache, "pilotlight-vm"), nil
}

// fetch gives the path of the kernel's image, from the cache where it is there already.
func (k kernel) fetch(cache string) (string, error) {
	folder := filepath.Join(cache, k.String())
	image, err := findFile(folder, "vmlinuz*")
	if err == nil {
		return image, nil
	}
	if err := fetchPackage(folder, k.architecture, k.pattern); err != nil {
		return "", fmt.Errorf("kernel %s: %w", k, err)
	}
	return findFile(folder, "vmlinuz*")
}

// fetchShell gives the path of a static shell for the architecture, with the usual small programs in it.
func fetchShell(cache, architecture string) (string, error) {
	folder := filepath.Join(cache, "busybox-"+architecture)
	shell, err := findFile(folder, "busybox")
	if err == nil {
		return shell, nil
	}
	if err := fetchPackage(folder, architecture, "busybox-static"); err != nil {
		return "", fmt.Errorf("busybox for %s: %w", architecture, err)
	}
	return findFile(folder, "busybox")
}

// fetchPackage makes folder the newest package that matches. What is interrupted does not look finished, and two who
// fetch at once do not meet.
func fetchPackage(folder, architecture, pattern string) error {
	partial, err := filepath.Abs(filepath.Dir(folder))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	if partial, err = os.MkdirTemp(partial, "partial-"); err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	cmd := exec.Command("test/vm/fetch.sh", partial, architecture, pattern)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return errors.Join(os.RemoveAll(folder), os.Rename(strings.TrimSpace(string(out)), folder))
}

// findFile gives the first file below folder whose name matches.
func findFile(folder, pattern string) (found string, err error) {
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, err := filepath.Match(pattern, d.Name()); ok && d.Type().IsRegular() {
			found = path
			return filepath.SkipAll
		} else if err != nil {
			return err
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("%s: no file %s in it", folder, pattern)
	}
	return found, err
}
