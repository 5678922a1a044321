package profile

import "time"

// Builder adds samples up. The zero value is not usable; see NewBuilder. Not
// safe for concurrent use.
type Builder struct {
	profile Profile
	index   map[sampleKey]int
}

type sampleKey struct {
	kernel, user *Stack
	labels       *Labels
}

// NewBuilder begins a profile at a time.
func NewBuilder(t Type, period int64, start time.Time) *Builder {
	return &Builder{profile: Profile{Type: t, Period: period, Start: start}, index: make(map[sampleKey]int)}
}

// Add adds one sample. Samples with the same three pointers become one.
func (b *Builder) Add(kernel, user *Stack, labels *Labels, value int64) {
	b.add(kernel, user, labels, value)
}

// AddAt adds one sample and keeps when it was taken, counted from the profile's start. A profile keeps the times of all
// its samples or of none.
func (b *Builder) AddAt(kernel, user *Stack, labels *Labels, value int64, at time.Duration) {
	s := b.add(kernel, user, labels, value)
	s.Times = append(s.Times, at)
}

func (b *Builder) add(kernel, user *Stack, labels *Labels, value int64) *Sample {
	key := sampleKey{kernel, user, labels}
	i, ok := b.index[key]
	if !ok {
		i = len(b.profile.Samples)
		b.index[key] = i
		b.profile.Samples = append(b.profile.Samples, Sample{Kernel: kernel, User: user, Labels: labels})
	}
	s := &b.profile.Samples[i]
	s.Count++
	s.Value += value
	return s
}

// Holds says whether a sample with these three pointers was added.
func (b *Builder) Holds(kernel, user *Stack, labels *Labels) bool {
	_, ok := b.index[sampleKey{kernel, user, labels}]
	return ok
}

// Count is the number of samples added so far.
func (b *Builder) Count() (n uint64) {
	for i := range b.profile.Samples {
		n += uint64(b.profile.Samples[i].Count)
	}
	return n
}

// Build ends the profile. The Builder must not be used afterwards. Samples that were taken a moment after the end, while those before it were
// fetched, were at its end: each time lies in the profile. One that began after the last samples were fetched has no duration.
func (b *Builder) Build(end time.Time, account Account) *Profile {
	p := b.profile
	p.Duration = max(0, end.Sub(p.Start))
	p.Account = account
	for i := range p.Samples {
		for j, at := range p.Samples[i].Times {
			p.Samples[i].Times[j] = max(0, min(at, p.Duration-1))
		}
	}
	b.index, b.profile = nil, Profile{}
	return &p
}

// Worth divides the value of samples among them: each is worth the same, and the first one, beside that, what does not divide.
func Worth(value, count int64) (each, rest int64) { return value / count, value % count }

// Walk visits the sample's locations, innermost first: the kernel's, then the
// user's. Missing, which may be nil, is told where frames are missing, and why:
// after a side's last location.
func (s *Sample) Walk(visit func(*Location), missing func(reason string)) {
	for _, side := range []*Stack{s.Kernel, s.User} {
		if side == nil {
			continue
		}
		for _, l := range side.Locations {
			visit(l)
		}
		if side.Truncated != "" && missing != nil {
			missing(side.Truncated)
		}
	}
}
