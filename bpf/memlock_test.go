package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func memlock(t *testing.T) unix.Rlimit {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	return limit
}

// keepMemlock puts the limit back after a test that raises it.
func keepMemlock(t *testing.T) {
	t.Helper()
	before := memlock(t)
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: before.Cur, Max: memlock(t).Max}); err != nil {
			t.Error(err)
		}
	})
}

// The limit is left alone where it does not bind BPF, and raised as far as allowed where it might.
func TestMemlock(t *testing.T) {
	keepMemlock(t)
	low := unix.Rlimit{Cur: 64 << 10, Max: memlock(t).Max}
	if low.Max < 128<<10 {
		t.Fatalf("the hard limit is %d bytes, too low for this test", low.Max)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &low); err != nil {
		t.Fatal(err)
	}
	probed.Delete(MemcgAccounting)
	accounting := MemcgAccounting.Probe()
	if got := memlock(t); got != low {
		t.Errorf("the probe left the limit at %+v", got)
	}
	load(t, Options{})
	if raised := memlock(t) != low; raised == (accounting.Answer == Yes) {
		t.Errorf("memcg accounting: %s; the limit was raised: %t", accounting.Answer, raised)
	}
	load(t, Options{Without: []Feature{MemcgAccounting}})
	if got := memlock(t); got.Cur != got.Max {
		t.Errorf("without memcg accounting the limit is %+v", got)
	}
}
