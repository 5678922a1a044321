package terminal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"

	"github.com/clipperhouse/displaywidth"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// hostile are names as a process may give them.
var hostile = []string{
	"main", "", "\x1b[2J\x1b]0;x\a", "漢字の関数名がここに長く長く続く", "e\u0301\u0301\u0301", "\xff\xfe\x9b31m", "\u202eabc", "a\nb\r\tc",
	strings.Repeat("x", 1<<20), strings.Repeat("\u0301", 1<<16), "👩‍👩‍👧‍👦 family", "[libc.so.6+0x29d90]",
}

func profileOf(r *rand.Rand) *profile.Profile {
	p := &profile.Profile{Type: profile.TypeCPU, Period: 10, Duration: 1e9, Account: profile.Account{Taken: 100, Exported: 99, Lost: []profile.Loss{{Reason: "ring_full", Count: 1}}}}
	for i := range 40 {
		s := &profile.Stack{}
		for range 1 + r.IntN(6) {
			name := hostile[r.IntN(len(hostile))]
			s.Locations = append(s.Locations, &profile.Location{
				Kind: profile.FrameNative, Mapping: &profile.Mapping{Path: "/bin/" + hostile[r.IntN(len(hostile))]},
				Lines: []profile.Line{{Function: &profile.Function{Name: name}}},
			})
		}
		if r.IntN(4) == 0 {
			s.Truncated = "no_table"
		}
		n := int64(r.IntN(10))
		p.Samples = append(p.Samples, profile.Sample{User: s, Labels: &profile.Labels{PID: i % 7, Comm: hostile[i%len(hostile)]}, Count: n, Value: n * 1e7})
	}
	return p
}

// check holds text to what a terminal may be given: printable characters, in so many columns.
func check(t *testing.T, text string, width int) {
	t.Helper()
	if w := displaywidth.String(text); w > width {
		t.Errorf("%d columns of %d: %q", w, width, text)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			t.Errorf("%q in %q", r, text)
		}
	}
	if len(text) > 100*width {
		t.Errorf("%d bytes in %d columns", len(text), width)
	}
}

// Whatever the names, the size and the keys: a screen is as many lines as it has, none is too wide, and nothing unprintable is on it.
func TestEveryScreenFits(t *testing.T) {
	keys := []rune{keyUp, keyDown, keyPageUp, keyPageDown, keyHome, keyEnd, keyEnter, keyBack, keyTab, 'j', 'k', 'p', '?', '/', 'x', '[', '.', '*', '\x1b', 'é'}
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		v := newView(Options{Target: "comm \x1b[31m", FrequencyHz: 97, State: func() string { return "" }})
		for step := range 80 {
			if step%10 == 1 {
				v.add(profileOf(r))
			}
			if !v.key(keys[r.IntN(len(keys))]) {
				t.Fatal("a key that is not q has quit")
			}
			width, height := 1+r.IntN(140), 1+r.IntN(50)
			if step%3 == 0 {
				width, height = 80, 24
			}
			lines := v.draw(width, height)
			if len(lines) != height {
				t.Fatalf("%d lines of %d", len(lines), height)
			}
			for _, l := range lines {
				text := ""
				for _, s := range l {
					text += s.text
				}
				check(t, text, max(width, 45)) // narrower ones are cut by the screen
			}
		}
		if v.typing {
			v.key(keyQuit)
		} else if v.help = false; v.key('q') {
			t.Error("q does not quit")
		}
	}
}

// The window forgets what is older, and what comes while it is paused.
func TestWindow(t *testing.T) {
	v := newView(Options{})
	r := rand.New(rand.NewPCG(1, 1))
	for range 2 * keepProfiles {
		v.add(profileOf(r))
	}
	if v.all.Duration != keepProfiles*1e9 || v.all.Account.Exported != 99*keepProfiles || v.all.Account.Lost[0].Count != keepProfiles {
		t.Errorf("%v, %+v", v.all.Duration, v.all.Account)
	}
	before := v.table
	v.key('p')
	v.add(profileOf(r))
	if v.table != before {
		t.Error("it goes on while it is paused")
	}
	v.key('p')
	v.add(profileOf(r))
	if v.table == before {
		t.Error("it does not go on after the pause")
	}
}

func TestWriteDiffAndOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	a, b := profileOf(r), profileOf(r)
	for _, scale := range []flame.Scale{flame.ByShare, flame.ByTime} {
		d, err := flame.Diff(a, b, scale)
		if err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{60, 80, 200} {
			var out bytes.Buffer
			if err := WriteDiff(&out, d, DiffOptions{Before: "\x1b[31m", After: strings.Repeat("y", 500), Rows: 100, Width: width}); err != nil {
				t.Fatal(err)
			}
			if err := WriteOnce(&out, Options{Target: "all"}, a, 20, width); err != nil {
				t.Fatal(err)
			}
			for text := range strings.Lines(out.String()) {
				check(t, strings.TrimSuffix(text, "\n"), max(width, 72))
			}
			if n := strings.Count(out.String(), "\n"); n < len(d.Functions)+15 {
				t.Errorf("%d lines for %d functions", n, len(d.Functions))
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -100: "-100", -1000: "-1,000"} {
		if got := number(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	for share, want := range map[float64]string{0: "     ", 0.5: "██▌  ", 1: "█████", 7: "█████", 0.03: "▏    "} {
		if got := bar(share); got != want {
			t.Errorf("%v: %s|", share, fmt.Sprint(got))
		}
	}
}

// Functions that weigh as much as the lightest one that gets a line do not take the lines of heavier ones that come after them.
func TestTreeHasTheHeaviest(t *testing.T) {
	p := &profile.Profile{Type: profile.TypeCPU, Duration: 1e9}
	add := func(n int64, names ...string) {
		s := &profile.Stack{}
		for _, name := range names {
			s.Locations = append(s.Locations, &profile.Location{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		p.Samples = append(p.Samples, profile.Sample{User: s, Labels: &profile.Labels{}, Count: n, Value: n})
	}
	for i := range 60 {
		add(1, fmt.Sprint("leaf", i), "wide")
	}
	add(40, "narrow")
	var out bytes.Buffer
	if err := WriteTree(&out, flame.NewTree(p), QueryOptions{Width: 80, Rows: 10}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.Contains(text, "narrow") || strings.Count(text, "leaf") != 8 || !strings.Contains(text, "52 more lines") {
		t.Errorf("%s", text)
	}
}
