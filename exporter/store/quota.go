package store

import (
	"hash/maphash"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// quota shares out what the stacks of a date may take among the programs whose stacks they are: one that makes up new stacks all the time
// must neither push the history of the others out, nor keep their stacks from being written.
//
// Each cgroup may have up to four times what is left, and each program in it (by its path, for workers share their stacks) twice that. So one alone takes
// two thirds of all at most, the others have room, and the more there are that take all they can the less each gets. What was
// written before a restart counts, but for nobody.
//
// What a stack takes is estimated: 12 bytes a frame, as on the host of BenchmarkBusyHost, and the names that were not met before.
type quota struct {
	limit, used int64
	owners      map[uint64]int64 // by a hash of cgroup, or cgroup and program
	names       map[uint64]struct{}
	seed        maphash.Seed
	fresh       []uint64 // names of the stack that is looked at
}

const (
	// quotaShare is the part of MaxBytes that the stacks of a date may take, and maxQuota what they may at most: 250,000 stacks of 40 frames. A
	// host of 64 busy CPUs shows 66,000 a day.
	quotaShare = 16
	maxQuota   = 128 << 20
	minQuota   = 1 << 20
	// minStackCost bounds the IDs that are kept in memory, 8 to 16 bytes each: 524,288.
	minStackCost = 256
	frameCost    = 12
	// maxOwners have an account of their own, all others share one. maxQuotaNames are remembered.
	maxOwners     = 32 << 10
	maxQuotaNames = 64 << 10
)

func newQuota(maxBytes int64) *quota {
	return &quota{
		limit: max(minQuota, min(maxBytes/quotaShare, maxQuota)), owners: make(map[uint64]int64), names: make(map[uint64]struct{}), seed: maphash.MakeSeed(),
	}
}

// charge is what a stack took, to be given back if it is not written.
type charge struct {
	cgroup, program uint64
	bytes           int64
}

// take says whether there is room for a stack of a process.
func (q *quota) take(l *profile.Labels, row *StackRow) (charge, bool) {
	c := q.ownersOf(l)
	left := q.limit - q.used
	if q.owners[c.cgroup] > 4*left || q.owners[c.program] > 2*left {
		return c, false // without a look at its names
	}
	c.bytes = q.cost(row)
	if c.bytes > left || q.owners[c.cgroup]+c.bytes > 4*(left-c.bytes) || q.owners[c.program]+c.bytes > 2*(left-c.bytes) {
		for _, name := range q.fresh {
			delete(q.names, name)
		}
		return c, false
	}
	q.add(c, c.bytes)
	return c, true
}

func (q *quota) giveBack(c charge) { q.add(c, -c.bytes) }

func (q *quota) add(c charge, bytes int64) {
	q.used += bytes
	q.owners[c.cgroup] += bytes
	q.owners[c.program] += bytes
}

func (q *quota) ownersOf(l *profile.Labels) (c charge) {
	var cgroup, exe string
	if l != nil {
		cgroup, exe = l.Cgroup, l.Exe
	}
	return charge{cgroup: q.owner(cgroup), program: q.owner(cgroup + "\x00" + exe)}
}

func (q *quota) owner(name string) uint64 {
	h := maphash.String(q.seed, name)
	if _, ok := q.owners[h]; !ok && len(q.owners) >= maxOwners {
		return 0
	}
	return h
}

// cost is what a stack takes; its new names are in fresh.
func (q *quota) cost(row *StackRow) int64 {
	if len(q.names) > maxQuotaNames {
		clear(q.names)
	}
	q.fresh = q.fresh[:0]
	sum := int64(frameCost * len(row.Frames))
	for i := range row.Frames {
		f := &row.Frames[i]
		for _, name := range []string{f.Function, f.LinkageName, f.File, f.Module, f.BuildID} {
			h := maphash.String(q.seed, name)
			if _, ok := q.names[h]; !ok {
				q.names[h] = struct{}{}
				q.fresh = append(q.fresh, h)
				sum += int64(len(name))
			}
		}
	}
	return max(sum, minStackCost)
}

// limited is in the place of the stacks that there is no room for.
var limited = &profile.Sample{User: &profile.Stack{Truncated: bpf.ReasonHistoryFull.String()}}
