// SPDX-License-Identifier: Apache-2.0

//go:build vm

package test

import (
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// The soak on a whole host that loses and regains a CPU. Nobody else uses BPF here: all that is there is counted.
func TestVMSoak(t *testing.T) {
	const control = "/sys/devices/system/cpu/cpu1/online"
	online := func(on string) {
		if err := os.WriteFile(control, []byte(on), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { online("1") })
	// Symbol tables of all programs of the host are 24 MB at most, and are read one after the other.
	const most, growth = 96 << 20, 48 << 20
	s := &soak{most: most, growth: growth, hz: hostHz, execs: 10, fresh: 1, disturb: func() float64 {
		online("0")
		time.Sleep(time.Second)
		online("1")
		time.Sleep(3 * time.Second) // CPUs are looked at once a second, or when a slow machine comes to it
		return 3
	}}
	before := countObjects(t)
	s.run(t, 15*time.Second)
	after := countObjects(t)
	for deadline := time.Now().Add(10 * time.Second); after != before && time.Now().Before(deadline); after = countObjects(t) {
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("BPF objects of the host: %+v", before)
	if after != before {
		t.Errorf("BPF objects of the host: %+v before, %+v after", before, after)
	}
}

// objectCount is how many objects a host has.
type objectCount struct{ programs, maps, links, types int }

func countObjects(t testing.TB) (n objectCount) {
	t.Helper()
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		n.programs++
	}
	for id, err := ebpf.MapGetNextID(0); err == nil; id, err = ebpf.MapGetNextID(id) {
		n.maps++
	}
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		n.links++
	}
	types := new(btf.HandleIterator)
	for types.Next() {
		n.types++
	}
	return n
}
