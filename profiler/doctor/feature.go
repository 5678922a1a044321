package doctor

import (
	"slices"

	"github.com/pilotlight/pilotlight/bpf"
)

// featureChecks are one for each feature that there is a way without. They
// never warn: a fallback that does not work shows in the checks of what it is for.
func featureChecks() []func(*machine) Check {
	var all []func(*machine) Check
	for _, info := range bpf.Features {
		if info.Fallback != "" { // the others have checks of their own
			all = append(all, func(m *machine) Check { return m.feature(&info) })
		}
	}
	return all
}

func (m *machine) feature(info *bpf.FeatureInfo) Check {
	c := Check{ID: "feature_" + string(info.Feature), Title: string(info.Feature), Status: OK}
	without := ": the fallback is used: " + info.Fallback
	switch s := m.trials.features[info.Feature]; {
	case slices.Contains(m.options.Without, info.Feature):
		c.Found = "switched off" + without
	case s.Answer == inconclusive && notPermitted(s.Err):
		c.Status, c.Found = Unknown, "could not be tried: it takes CAP_BPF and CAP_PERFMON"
	case s.Answer == inconclusive:
		c.Status, c.Found = Unknown, reason(s.Err)
	case s.Answer == no:
		c.Found = "not there (it is since " + info.Since + ")" + without
	default:
		c.Found = "used, for " + info.Use
	}
	return c
}

// mmap2BuildID is for information: files are known by device and inode, and the build id is read from the file.
func mmap2BuildID(m *machine) Check {
	c := Check{ID: "mmap2_build_id", Title: "build ids in MMAP2", Status: OK, Found: "there, for files that vanish with their mount namespace; not used yet"}
	switch t := m.trials.buildID; {
	case t.answer == inconclusive, notPermitted(t.err):
		c.Status, c.Found = Unknown, reason(t.err)
	case t.answer == no:
		c.Found = "not there (it is since 5.12); not used yet"
	}
	return c
}

func usercopyLockup(m *machine) Check {
	c := Check{ID: "usercopy_lockup", Title: "usercopy lock-up", Status: OK}
	l := bpf.UsercopyLockup(m.files)
	c.Found = l.Why
	if l.Answer == no {
		return c
	}
	c.Status = Warn
	if l.Answer == yes {
		c.Found += ": a BPF program that reads user memory can lock up the machine"
	} else {
		c.Found += "; a BPF program that reads user memory could lock up the machine"
	}
	c.Loss = "callers in code without frame pointers, because stacks are not walked by unwind tables here"
	c.Remedy = "install a kernel with the fix (6.4, 6.3.10, 6.1.36 or newer), or boot with hardened_usercopy=off"
	return c
}
