package web

import (
	"context"
	"errors"
	"time"

	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// File is a profile that is shown in place of what an agent samples. Of two, the first is what was before.
type File struct {
	Name    string
	Profile *profile.Profile
}

// shownFile says at which time the page finds a file.
type shownFile struct {
	Name string    `json:"name"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Moved says that this is not when it was taken: the file does not tell, or the time is that of the other file too.
	Moved bool `json:"moved"`
}

// show puts files into a history, each at a time of its own.
func show(files []File) (memory, []shownFile) {
	profiles, shown := make(memory, len(files)), make([]shownFile, len(files))
	for i := len(files) - 1; i >= 0; i-- {
		p := *files[i].Profile
		f := shownFile{Name: files[i].Name}
		length := max(p.Duration, time.Second)
		if p.Start.IsZero() {
			p.Start, f.Moved = time.Now().Add(-length).Truncate(time.Second), true
		}
		if next := i + 1; next < len(files) && !p.Start.Add(length).Before(shown[next].From) {
			p.Start, f.Moved = shown[next].From.Add(-length-time.Second), true
		}
		f.From, f.To = p.Start, p.Start.Add(length)
		profiles[i], shown[i] = &p, f
	}
	return profiles, shown
}

// nothingSampled is the Profiler where files are shown.
type nothingSampled struct{ started time.Time }

var errNothingSampled = errors.New("files are shown, and nothing is sampled: leave seconds out, or ask an agent")

func (nothingSampled) Collect(context.Context, collect.Filter, time.Duration) (*profile.Profile, error) {
	return nil, errNothingSampled
}
func (nothingSampled) Stats(context.Context) (s collect.Stats, err error) { return s, nil }
func (n nothingSampled) Started() time.Time                               { return n.started }
func (nothingSampled) Done() <-chan struct{}                              { return nil }
