package collect

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/symbolizer/kallsyms"
)

// The names are read again from the file that was opened first: it shows addresses for as long as it is
// open, and one opened later may not.
func TestKernelNamesKeepTheFile(t *testing.T) {
	const before = "ffffffff81000000 T _stext\nffffffff81001000 t do_exit\nffffffff81002000 T _etext\n"
	path := filepath.Join(t.TempDir(), "kallsyms")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write := func(text string) {
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(before)
	k := &KernelNames{path: path}
	defer k.Close()
	k.read(nil)
	if err := k.Problem(); err != nil {
		t.Fatal(err)
	}
	const module = 0xffffffffc0001010
	k.retry = time.Now().Add(time.Hour)
	if s, ok := k.lookup(module); ok {
		t.Fatalf("%+v was found before it came", s)
	}
	write("ffffffffc0001000 t came_later\t[module]\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	k.retry = time.Time{}
	if s, ok := k.lookup(module); !ok || s.Name != "came_later" {
		t.Errorf("found %+v, problem %v", s, k.Problem())
	}
}

// A file that shows no addresses is not kept: the next may.
func TestKernelNamesTryAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(path, []byte("0000000000000000 T _stext\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &KernelNames{path: path}
	defer k.Close()
	k.read(nil)
	if err := k.Problem(); err == nil {
		t.Fatal(kallsyms.ErrRestricted, "was expected")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("ffffffff81001000 T do_exit\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, ok := k.lookup(0xffffffff81001010); !ok || s.Name != "do_exit" {
		t.Errorf("found %+v, problem %v", s, k.Problem())
	}
}

// While the names are read, which takes long, other things are done; and at the end they are not read again.
func TestKernelNamesAreAttentive(t *testing.T) {
	const line = "ffffffff81001000 T do_exit\n"
	path, slow := filepath.Join(t.TempDir(), "kallsyms"), filepath.Join(t.TempDir(), "slow")
	if err := errors.Join(os.WriteFile(path, []byte(line), 0o600), unix.Mkfifo(slow, 0o600)); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		file, err := os.OpenFile(slow, os.O_WRONLY, 0)
		for i := 0; i < 5 && err == nil; i++ {
			_, err = file.WriteString(line)
			time.Sleep(5 * gatherPause)
		}
		written <- errors.Join(err, file.Close())
	}()
	calls := 0
	k := &KernelNames{path: slow, meanwhile: func() { calls++ }}
	k.read(nil)
	if err := errors.Join(k.Problem(), <-written); err != nil || calls < 3 {
		t.Errorf("%d calls beside reads that took long; %v", calls, err)
	}
	k.Close()
	k = &KernelNames{path: path, settled: true}
	defer k.Close()
	if s, ok := k.lookup(0xffffffff81001010); ok {
		t.Errorf("at the end the names were read, and %+v found", s)
	}
	k.settled = false
	if s, ok := k.lookup(0xffffffff81001010); !ok || s.Name != "do_exit" {
		t.Errorf("found %+v, problem %v", s, k.Problem())
	}
}
