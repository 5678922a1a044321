package terminal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/clipperhouse/displaywidth"
	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Show shows profiles as they come, until the user quits or ctx ends. It takes the terminal of the process, and gives it
// back as it was.
func Show(ctx context.Context, o Options, profiles <-chan *profile.Profile) error {
	screen, err := tcell.NewScreen()
	if err != nil {
		return fmt.Errorf("open the terminal: %w", err)
	}
	return show(ctx, screen, o, profiles)
}

func show(ctx context.Context, screen tcell.Screen, o Options, profiles <-chan *profile.Profile) error {
	if err := screen.Init(); err != nil {
		return fmt.Errorf("set up the terminal: %w", err)
	}
	defer screen.Fini()
	v := newView(o)
	for {
		paint(screen, v)
		select {
		case <-ctx.Done():
			return nil
		case p := <-profiles:
			v.add(p)
		case event, open := <-screen.EventQ():
			if !open {
				return nil // the terminal is gone
			}
			switch event := event.(type) {
			case *tcell.EventResize:
				screen.Sync()
			case *tcell.EventKey:
				for _, k := range keysOf(event) {
					if !v.key(k) {
						return nil
					}
				}
			}
		}
	}
}

// keysOf translates a key; none for those that mean nothing here.
func keysOf(event *tcell.EventKey) []rune {
	switch event.Key() {
	case tcell.KeyRune:
		return []rune(event.Str())
	case tcell.KeyUp:
		return []rune{keyUp}
	case tcell.KeyDown:
		return []rune{keyDown}
	case tcell.KeyPgUp:
		return []rune{keyPageUp}
	case tcell.KeyPgDn:
		return []rune{keyPageDown}
	case tcell.KeyHome:
		return []rune{keyHome}
	case tcell.KeyEnd:
		return []rune{keyEnd}
	case tcell.KeyEnter:
		return []rune{keyEnter}
	case tcell.KeyTab:
		return []rune{keyTab}
	case tcell.KeyEscape, tcell.KeyBackspace, tcell.KeyLeft:
		return []rune{keyBack}
	case tcell.KeyRight:
		return []rune{keyEnter}
	case tcell.KeyCtrlC:
		return []rune{keyQuit}
	}
	return nil
}

var styles = map[tone]tcell.Style{
	title:    tcell.StyleDefault.Reverse(true).Bold(true),
	heading:  tcell.StyleDefault.Bold(true),
	dim:      tcell.StyleDefault.Dim(true),
	hot:      tcell.StyleDefault.Foreground(color.Orange),
	selected: tcell.StyleDefault.Reverse(true),
	warning:  tcell.StyleDefault.Foreground(color.Black).Background(color.Orange).Bold(true),
}

func paint(screen tcell.Screen, v *view) {
	screen.Clear()
	width, height := screen.Size()
	for y, l := range v.draw(width, height) {
		x := 0
		for _, s := range l {
			screen.PutStrStyled(x, y, s.text, styles[s.tone])
			x += displaywidth.String(s.text)
		}
	}
	screen.Show()
}

// WriteOnce writes what the view shows at first, with so many processes and functions.
func WriteOnce(w io.Writer, o Options, p *profile.Profile, rows, width int) error {
	v := newView(o)
	v.pane, v.at = panes, [panes]int{} // nothing is selected
	v.add(p)
	v.processes = v.processes[:min(len(v.processes), rows/2)]
	v.rows = v.rows[:min(len(v.rows), rows)]
	out := bufio.NewWriter(w)
	lines := []line{v.titleLine(width), v.accountLine(width)}
	lines = append(lines, v.overviewLines(width, 3*max(len(v.processes)+6, len(v.rows)+len(v.processes)+6))...)
	for _, l := range lines {
		text := ""
		for _, s := range l {
			text += s.text
		}
		fmt.Fprintln(out, strings.TrimRight(text, " "))
	}
	return out.Flush()
}
