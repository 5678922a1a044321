// Package busyhost makes up the profiles of a host of many CPUs that is busy:
// for tests and measurements of what keeps them.
package busyhost

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Options say how busy. The zero value is a host of 64 CPUs with 300 processes that show 20,000 stacks of 40 frames an hour, sampled at 97 Hz.
type Options struct {
	Seed                              uint64
	CPUs, Processes, Stacks, Frames   int
	FrequencyHz                       int
	LostPerInterval, NewStacksPercent int // by default 3 and, each hour, 10
	// SharedCallersPercent of the stacks have callers in common with another one of their process. 0: only by chance, which is the worst case.
	SharedCallersPercent int
}

// Host makes profiles. Not safe for concurrent use.
type Host struct {
	options Options
	random  *rand.Rand
	labels  []*profile.Labels
	modules []*profile.Mapping
	kernel  *profile.Mapping
	samples []profile.Sample // the stacks and labels, the hottest first
	sums    []float64        // of the weights of samples until each
	period  int64
	places  map[place]*profile.Location
	latest  map[*profile.Labels]*profile.Stack // of a process
}

type place struct {
	kind   profile.FrameKind
	number int
}

// New makes a host that does the same for the same options.
func New(o Options) *Host {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&o.CPUs, 64)
	set(&o.Processes, 300)
	set(&o.Stacks, 20000)
	set(&o.Frames, 40)
	set(&o.FrequencyHz, 97)
	set(&o.LostPerInterval, 3)
	set(&o.NewStacksPercent, 10)
	h := &Host{options: o, random: rand.New(rand.NewPCG(o.Seed, 97)), period: int64(1e9) / int64(o.FrequencyHz),
		places: make(map[place]*profile.Location), latest: make(map[*profile.Labels]*profile.Stack)}
	h.kernel = &profile.Mapping{Path: "[kernel.kallsyms]", HasFunctions: true}
	for i := range 60 {
		h.modules = append(h.modules, &profile.Mapping{Path: fmt.Sprintf("/usr/lib/x86_64-linux-gnu/libservice%d.so.%d", i, i%7),
			BuildID: fmt.Sprintf("%016x%016x%08x", h.random.Uint64(), h.random.Uint64(), h.random.Uint32()), HasFunctions: true})
	}
	for i := range o.Processes {
		program := fmt.Sprintf("service-%d", i/7) // workers of one program
		h.labels = append(h.labels, &profile.Labels{
			PID: 1000 + 13*i, Comm: program, Thread: fmt.Sprintf("worker-%d", i%5), Exe: "/opt/" + program + "/bin/" + program,
			Cgroup:      fmt.Sprintf("/kubepods.slice/kubepods-burstable.slice/kubepods-pod%08x.slice", i/3),
			ContainerID: fmt.Sprintf("%064x", 0xc0ffee+i/3),
			PodUID:      fmt.Sprintf("%08x-0000-4000-8000-%012x", i/3, i/3), Unit: fmt.Sprintf("cri-containerd-%064x.scope", 0xc0ffee+i/3),
		})
		if i%2 == 0 { // the others are called by their program
			h.labels[i].Service = fmt.Sprintf("shop-%d", i/7)
		}
	}
	sum := 0.0
	for i := range o.Stacks {
		h.samples = append(h.samples, h.stack())
		sum += 1 / float64(i+1)
		h.sums = append(h.sums, sum)
	}
	// Nothing says that the stacks of a program are met in the order of their heat.
	h.random.Shuffle(len(h.samples), func(i, j int) { h.samples[i], h.samples[j] = h.samples[j], h.samples[i] })
	return h
}

// stack makes a sample of its own, in one of the processes.
func (h *Host) stack() profile.Sample {
	s := profile.Sample{Labels: h.labels[h.random.IntN(len(h.labels))], User: &profile.Stack{Root: true}}
	left := h.options.Frames
	if h.random.IntN(10) < 3 {
		s.Kernel = &profile.Stack{}
		for range min(10, left/2) {
			s.Kernel.Locations = append(s.Kernel.Locations, h.location(profile.FrameKernel))
			left--
		}
	}
	// Most ways into a program part late.
	var callers []*profile.Location
	if before := h.latest[s.Labels]; before != nil && h.random.IntN(100) < h.options.SharedCallersPercent {
		most := min(left-1, len(before.Locations))
		callers = before.Locations[len(before.Locations)-most/4-h.random.IntN(most-most/4+1):]
	}
	for range left - len(callers) {
		s.User.Locations = append(s.User.Locations, h.location(profile.FrameNative))
	}
	s.User.Locations = append(s.User.Locations, callers...)
	h.latest[s.Labels] = s.User
	return s
}

// location is one of some 30,000 of the host, most of them of common functions.
func (h *Host) location(kind profile.FrameKind) *profile.Location {
	n := int(30000 * math.Pow(h.random.Float64(), 3))
	if known := h.places[place{kind, n}]; known != nil {
		return known
	}
	m := h.kernel
	if kind == profile.FrameNative {
		m = h.modules[n%len(h.modules)]
	}
	l := &profile.Location{Kind: kind, Mapping: m, Address: uint64(n) * 64, Lines: []profile.Line{{
		Function: &profile.Function{Name: fmt.Sprintf("_ZN%dservice%d7request6handleILi%dEEEvRKSt6vectorIiSaIiEE", len("service")+len(fmt.Sprint(n%600)), n%600, n),
			File: fmt.Sprintf("/build/service-2.%d/src/request/handle%d.cc", n%9, n%600), StartLine: 10 + n%400},
		Line: 20 + n%400,
	}}}
	h.places[place{kind, n}] = l
	return l
}

// Interval is what was sampled in a span of time, with the times of the samples.
func (h *Host) Interval(start time.Time, d time.Duration) *profile.Profile {
	total := int(d.Seconds() * float64(h.options.CPUs*h.options.FrequencyHz))
	found := make(map[int]int)
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: d, Period: h.period}
	for range total {
		at := h.random.Float64() * h.sums[len(h.sums)-1]
		i, _ := slices.BinarySearch(h.sums, at)
		n, ok := found[i]
		if !ok {
			n = len(p.Samples)
			found[i] = n
			p.Samples = append(p.Samples, h.samples[i])
		}
		s := &p.Samples[n]
		s.Count++
		s.Value += h.period
		s.Times = append(s.Times, time.Duration(h.random.Int64N(int64(d))))
	}
	lost := uint64(h.options.LostPerInterval)
	p.Account = profile.Account{Taken: uint64(total) + lost, Exported: uint64(total), Lost: []profile.Loss{{Reason: "ring_full", Count: lost}}}
	return p
}

// NextHour puts new stacks in the place of some.
func (h *Host) NextHour() {
	for range len(h.samples) * h.options.NewStacksPercent / 100 {
		h.samples[h.random.IntN(len(h.samples))] = h.stack()
	}
}
