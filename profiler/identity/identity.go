// Package identity reads what a process says of itself in the words of OpenTelemetry: its service.name and further resource attributes. It
// says so in memory that it publishes for others (the process context of OTEP 4719), and by two variables of its environment.
//
// The caller supplies the bytes, and readers of a process's memory. What is read was written by whoever runs the process: sizes are bounded, and
// what is malformed is left out. Of the environment nothing is kept but the two variables that are meant for this.
package identity

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Said is what a process says of itself. The zero value is nothing. It is not changed once it is made.
type Said struct {
	// Service is its service.name.
	Service string
	// Attributes are the others, in the order of their keys, each key once; MaxAttributes at most.
	Attributes []profile.Attribute
}

// Bounds of what is kept of one process: 4 KB. Longer values are left out, not cut: half a version is another one.
const (
	// MaxAttributes is about what receivers take beside the profiler's own: 30 names of labels (Pyroscope).
	MaxAttributes = 15
	maxKey        = 128
	maxValue      = 512
	maxBytes      = 4 << 10
)

const serviceName = "service.name"

// known are attributes of which the kernel knows the truth: the number that a process has for itself may be another one, in a pid namespace.
var known = []string{
	"process.pid", "process.parent_pid", "process.title", "process.executable.name", "process.executable.path", "process.linux.cgroup",
	"systemd.unit.name", "thread.id", "thread.name",
}

// first are the attributes that are kept before others where there are too many, in this order; those of last are kept after them. A name
// that ends in a dot stands for all that begin so.
var (
	first = []string{
		"service.instance.id", "service.namespace", "service.version", "deployment.environment.name", "deployment.environment",
		"k8s.cluster.name", "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name", "k8s.deployment.name", "k8s.",
		"service.", "deployment.", "container.", "cloud.", "host.name",
	}
	last = []string{"telemetry.", "process.", "os.", "host."}
)

// Rank of an attribute is less for what is rather kept, where there is no room for all.
func Rank(key string) int {
	named := func(name string) bool {
		return key == name || strings.HasSuffix(name, ".") && strings.HasPrefix(key, name)
	}
	if i := slices.IndexFunc(first, named); i >= 0 {
		return i
	}
	if i := slices.IndexFunc(last, named); i >= 0 {
		return len(first) + 1 + i
	}
	return len(first)
}

// Empty says that nothing was said.
func (s *Said) Empty() bool { return s.Service == "" && len(s.Attributes) == 0 }

// Bytes is what it takes in memory, about.
func (s *Said) Bytes() int {
	const header = 16 // of a string
	n := header + len(s.Service)
	for _, a := range s.Attributes {
		n += 2*header + len(a.Key) + len(a.Value)
	}
	return n
}

// Over puts what s says before what other says: of an attribute that both have, the value of s counts.
func (s *Said) Over(other Said) Said {
	return choose(cmp.Or(s.Service, other.Service), slices.Concat(s.Attributes, other.Attributes))
}

// usable says whether a value may be kept under a key.
func usable(key, value string) bool {
	unprintable := func(r rune) bool { return !unicode.IsGraphic(r) }
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, unprintable) && value != "" && len(value) <= maxValue && utf8.ValidString(key) && utf8.ValidString(value) &&
		!slices.Contains(known, key)
}

// choose keeps the first of each key, and of the keys those that say most, within the bounds.
func choose(service string, attributes []profile.Attribute) Said {
	said := Said{Service: service}
	seen := make(map[string]bool, len(attributes))
	var kept []profile.Attribute
	for _, a := range attributes {
		if !seen[a.Key] {
			seen[a.Key] = true
			kept = append(kept, a)
		}
	}
	slices.SortStableFunc(kept, func(a, b profile.Attribute) int { return cmp.Compare(Rank(a.Key), Rank(b.Key)) })
	size := 0
	for _, a := range kept {
		if size += len(a.Key) + len(a.Value); size > maxBytes || len(said.Attributes) == MaxAttributes {
			break
		}
		said.Attributes = append(said.Attributes, a)
	}
	slices.SortFunc(said.Attributes, func(a, b profile.Attribute) int { return cmp.Compare(a.Key, b.Key) })
	return said
}
