package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// A file that says of itself that it has no data, with sums that fit, is damaged, as one is whose end is missing.
func TestWithoutData(t *testing.T) {
	rest := append(make([]byte, 16), 16, 0, 0, 0, 'P', 'A', 'R', '1')
	sums := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(rest, castagnoli))
	sums = binary.LittleEndian.AppendUint64(sums, 0)
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(sums, castagnoli))
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, append(append(sums, sumsMagic...), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *DamageError
	if _, err := openChecked(path); !errors.As(err, &damage) {
		t.Errorf("%v", err)
	}
}

// What is read of a file, held or not, is what stands there, whatever parts are asked for; and a block that changed is an error that says where.
func TestReadAt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	s.Export(busyhost.New(busyhost.Options{CPUs: 8}).Interval(when, 10*time.Second))
	settle(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	couldHold := 0
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
			if c.all != nil {
				couldHold++
			}
			for range 1000 {
				at := r.IntN(len(whole) + 1)
				p := make([]byte, r.IntN(min(len(whole)-at, 3*checkedBlock)+1))
				if n, err := c.ReadAt(p, int64(at)); n != len(p) || err != nil || !bytes.Equal(p, whole[at:at+n]) {
					t.Fatalf("held %v: %d bytes at %d: %d, %v", held, len(p), at, n, err)
				}
			}
			if n, err := c.ReadAt(make([]byte, 100), int64(len(whole)-40)); n != 40 || err != io.EOF {
				t.Errorf("held %v, beyond the end: %d, %v", held, n, err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}

			// Cut off since it was opened, what is there can be read.
			if c, err = openChecked(path); err != nil {
				t.Fatal(err)
			}
			if held {
				c.hold()
			}
			if err := os.Truncate(path, c.data-checkedBlock); err != nil {
				t.Fatal(err)
			}
			if n, err := c.ReadAt(make([]byte, 100), 10); n != 100 || err != nil {
				t.Errorf("held %v, cut off: %d, %v", held, n, err)
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
	if couldHold != 1 {
		t.Errorf("%d of the files were held; the stacks are too many", couldHold)
	}
}
