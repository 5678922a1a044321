package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// What is read of a file, held or not, is what stands there, whatever parts are asked for; and a block that changed is an error that says where.
func TestReadAt(t *testing.T) {
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	s.Export(busyhost.New(busyhost.Options{CPUs: 8}).Interval(when, 10*time.Second))
	settle(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range s.files {
		path := filepath.Join(dir, f.path())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, held := range []bool{false, true} {
			c, err := openChecked(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.sums) < 3 {
				t.Fatalf("%s has %d blocks", path, len(c.sums))
			}
			if held {
				c.hold()
			}
			for range 1000 {
				at := r.IntN(len(whole) + 1)
				p := make([]byte, r.IntN(min(len(whole)-at, 3*checkedBlock)+1))
				if n, err := c.ReadAt(p, int64(at)); n != len(p) || err != nil || !bytes.Equal(p, whole[at:at+n]) {
					t.Fatalf("held %v: %d bytes at %d: %d, %v", held, len(p), at, n, err)
				}
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}

			damaged := bytes.Clone(whole)
			damaged[checkedBlock+r.IntN(checkedBlock)] ^= 1
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if c, err = openChecked(path); err != nil {
				t.Fatal(err)
			}
			if held {
				c.hold()
			}
			p := make([]byte, 100)
			if _, err := c.ReadAt(p, 0); err != nil {
				t.Errorf("held %v: the first block: %v", held, err)
			}
			var damage *DamageError
			if n, err := c.ReadAt(p, checkedBlock-50); !errors.As(err, &damage) || damage.Offset != checkedBlock || n != 0 {
				t.Errorf("held %v: %d, %v", held, n, err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
