package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/speedscope"
	"github.com/pilotlight/pilotlight/exporter/web"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// formats are those that can be written.
var formats = map[string]func(io.Writer, *profile.Profile) error{
	"pprof":  func(w io.Writer, p *profile.Profile) error { return pprof.Write(w, p) },
	"folded": folded.Write,
	"html":   web.WriteHTML,
	"otlp": func(w io.Writer, p *profile.Profile) error {
		return otlp.Write(w, p, otlp.Options{Version: version, Timestamps: true}) // where there are any
	},
	"speedscope": speedscope.Write,
}

// defaultOutputs are the names of files that programs know by their ending.
var defaultOutputs = map[string]string{"folded": "profile.folded", "html": "profile.html", "speedscope": "profile.speedscope.json", "otlp": "profile.otlp.pb"}

// zippedEnding of a name says that the file is gzipped.
const zippedEnding = ".gz"

// zippedByName zips what is written where the file's name says so; pprof files are always.
func zippedByName(name, format string, write func(io.Writer, *profile.Profile) error) func(io.Writer, *profile.Profile) error {
	if format == "pprof" || !strings.HasSuffix(strings.ToLower(name), zippedEnding) {
		return write
	}
	return func(w io.Writer, p *profile.Profile) error {
		zipped := gzip.NewWriter(w)
		return errors.Join(write(zipped, p), zipped.Close())
	}
}

// output is where a profile goes. A file is made beside its final place when
// sampling starts, so that an unwritable place is known then, and replaces the
// old one in a single step when it is complete. "-", a device or a pipe is written in place.
type output struct {
	path string
	file *os.File
	temp bool
}

func openOutput(path string) (*output, error) {
	if path == "-" {
		return &output{path: "standard output", file: os.Stdout}, nil
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("write %s: it is a directory; give a file", path)
	case err == nil && !info.Mode().IsRegular():
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
		return &output{path: path, file: file}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil && target != path {
		if err := trustLink(path); err != nil {
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
		path = target // the file behind a link is replaced, not the link
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		// The name that was tried is ours; the directory and the reason are what matters.
		return nil, fmt.Errorf("write %s: directory %s: %w; give another place", path, filepath.Dir(path), reason(err))
	}
	return &output{path: path, file: file, temp: true}, nil
}

// trustLink refuses a link that another user may have put into a directory where
// everybody can write: it could lead anywhere.
func trustLink(path string) error {
	link, err := os.Lstat(path)
	if err != nil || link.Mode()&fs.ModeSymlink == 0 {
		return err
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	const everybody = 0o002
	owner, ok := link.Sys().(*syscall.Stat_t)
	if dir.Mode()&fs.ModeSticky != 0 && dir.Mode().Perm()&everybody != 0 && (!ok || int(owner.Uid) != os.Geteuid()) {
		return errors.New("it is a link that another user made; give another place")
	}
	return nil
}

// reason is an error of the file system without the path.
func reason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// write writes the profile and puts the file in its place.
func (o *output) write(p *profile.Profile, write func(io.Writer, *profile.Profile) error) error {
	buffered := bufio.NewWriter(o.file)
	err := write(buffered, p)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil && o.temp {
		err = o.place()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", o.path, err)
	}
	return nil
}

func (o *output) place() error {
	const mode = 0o644
	if err := errors.Join(o.file.Chmod(mode), o.file.Sync(), o.file.Close()); err != nil {
		return err
	}
	return os.Rename(o.file.Name(), o.path)
}

// discard removes what is not complete.
func (o *output) discard() {
	if o.temp {
		_ = o.file.Close()
		_ = os.Remove(o.file.Name())
	}
}

// discardOnSignal has a signal end the program with nothing left of what is not complete, until it is released.
func (o *output) discardOnSignal() (release func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignals()...)
	go func() {
		if s, ok := <-signals; ok {
			o.discard()
			os.Exit(128 + int(s.(syscall.Signal)))
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// rescue writes a profile that could not be written where it should be to
// another place, and says where.
func rescue(p *profile.Profile, name string, write func(io.Writer, *profile.Profile) error) (string, error) {
	var errs []error
	for _, dir := range []string{os.TempDir(), "/dev/shm", "/run", "."} {
		// A fresh name of our own: nobody can have put a link there.
		file, err := os.CreateTemp(dir, "pilotlight-*-"+filepath.Base(name))
		if err == nil {
			o := &output{path: file.Name(), file: file}
			err = o.write(p, write)
			if err = errors.Join(err, file.Close()); err == nil {
				return file.Name(), nil
			}
			_ = os.Remove(file.Name())
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}
