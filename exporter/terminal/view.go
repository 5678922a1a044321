package terminal

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Options say what the view is of.
type Options struct {
	Target      string // in words
	FrequencyHz int
	// State says in words why nothing more may come; "" while sampling goes on. nil: it goes on.
	State func() string
}

// tone is how text looks: the screen makes colours of it.
type tone int

const (
	plain    tone = iota
	title         // the first line
	heading       // of a table
	dim           // what can be overlooked
	hot           // bars
	selected      // the line that the keys act on
	warning
)

// span is a piece of a line.
type span struct {
	text string
	tone tone
}

type line []span

// view is what is shown and what the keys do; it knows nothing of terminals. Not safe for concurrent use.
type view struct {
	options Options
	window  window
	paused  bool
	help    bool

	// Where the user is: at the tables, of one process or all, or at a function.
	pid     int // 0: all
	comm    string
	drilled []string // functions, the last one is shown
	pane    pane
	at      [panes]int // selected row of each pane
	pattern *regexp.Regexp
	typing  bool // of the pattern
	typed   string
	problem string // with what was typed

	// What is made of the window, whenever one of the above changes.
	all       *profile.Profile
	completed profile.Completeness
	processes []process
	chosen    *profile.Profile // of the process
	table     *flame.Table
	rows      []flame.Row
	self      flame.Row // of the function that is drilled into
	callers   []flame.Neighbour
	callees   []flame.Neighbour
}

// pane is one of the two lists: processes and functions, or callers and callees.
type pane int

const (
	upper pane = iota
	lower
	panes
)

func newView(o Options) *view {
	v := &view{options: o, pane: lower}
	v.refresh()
	return v
}

// add takes the profile of an interval.
func (v *view) add(p *profile.Profile) {
	if v.paused {
		return
	}
	v.window.add(p)
	v.refresh()
}

// refresh makes the tables again.
func (v *view) refresh() {
	v.all = v.window.sum()
	v.completed = v.all.Completeness()
	v.processes = processes(v.all)
	v.chosen = v.all
	if v.pid != 0 {
		v.chosen = ofProcess(v.all, v.pid)
	}
	v.table = flame.Top(v.chosen)
	v.rows = matching(v.table.Rows, v.pattern, func(r *flame.Row) string { return r.Name })
	if len(v.drilled) > 0 {
		name := v.drilled[len(v.drilled)-1]
		v.self = flame.Row{Function: flame.Function{Name: name}}
		for _, r := range v.table.Rows {
			if r.Name != name {
				continue
			}
			if v.self.Module == "" {
				v.self.Module = r.Module
			} else {
				v.self.Module += ", " + r.Module
			}
			v.self.Self.Value += r.Self.Value
			v.self.Total.Value += r.Total.Value
		}
		v.callers, v.callees = flame.Callers(v.chosen, name), flame.Callees(v.chosen, name)
	}
	for p := range panes {
		v.at[p] = max(0, min(v.at[p], v.length(p)-1))
	}
}

// length is how many rows a pane has.
func (v *view) length(p pane) int {
	switch {
	case len(v.drilled) > 0 && p == upper:
		return len(v.callers)
	case len(v.drilled) > 0:
		return len(v.callees)
	case p == upper:
		return len(v.processes)
	}
	return len(v.rows)
}

// Keys that are no characters.
const (
	keyUp = iota + math.MaxInt32 - 16 // no character is as large
	keyDown
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
	keyEnter
	keyBack
	keyTab
	keyQuit
)

// key does what a key stands for; false ends the view.
func (v *view) key(k rune) bool {
	switch {
	case k == keyQuit:
		return false
	case v.typing:
		v.typeKey(k)
		return true
	case v.help:
		v.help = false
		return true
	}
	const page = 10
	switch k {
	case 'q':
		return false
	case '?', 'h':
		v.help = true
	case 'p', ' ':
		v.paused = !v.paused
	case '/':
		v.typing, v.typed, v.problem = true, "", ""
	case keyTab:
		v.pane = (v.pane + 1) % panes
	case keyUp, 'k':
		v.move(-1)
	case keyDown, 'j':
		v.move(1)
	case keyPageUp:
		v.move(-page)
	case keyPageDown:
		v.move(page)
	case keyHome:
		v.move(-v.length(v.pane))
	case keyEnd:
		v.move(v.length(v.pane))
	case keyEnter:
		v.enter()
	case keyBack:
		v.back()
	}
	return true
}

func (v *view) move(by int) {
	v.at[v.pane] = max(0, min(v.at[v.pane]+by, v.length(v.pane)-1))
}

// enter goes into the selected row: the process, or the function.
func (v *view) enter() {
	i := v.at[v.pane]
	if i >= v.length(v.pane) {
		return
	}
	switch {
	case len(v.drilled) > 0 && v.pane == upper:
		v.drilled = append(v.drilled, v.callers[i].Name)
	case len(v.drilled) > 0:
		v.drilled = append(v.drilled, v.callees[i].Name)
	case v.pane == upper:
		v.pid, v.comm = v.processes[i].pid, v.processes[i].comm
		v.pane = lower
	default:
		v.drilled = []string{v.rows[i].Name}
		v.pane = upper
	}
	v.at[upper], v.at[lower] = 0, 0
	v.refresh()
}

// back undoes one step: of functions, then the pattern, then the process.
func (v *view) back() {
	switch {
	case len(v.drilled) > 0:
		v.drilled = v.drilled[:len(v.drilled)-1]
		if len(v.drilled) == 0 {
			v.pane = lower
		}
	case v.pattern != nil:
		v.pattern = nil
	case v.pid != 0:
		v.pid, v.comm = 0, ""
	default:
		return
	}
	v.at[upper], v.at[lower] = 0, 0
	v.refresh()
}

// maxTyped bounds the pattern, in bytes.
const maxTyped = 200

// typeKey edits the pattern.
func (v *view) typeKey(k rune) {
	switch {
	case k == keyEnter:
		pattern, err := regexp.Compile(v.typed)
		if err != nil {
			v.problem = "that is no regular expression"
			return
		}
		v.typing, v.problem = false, ""
		if v.pattern = pattern; v.typed == "" {
			v.pattern = nil
		}
		v.pane, v.at[lower] = lower, 0
		v.refresh()
	case k == keyBack && v.typed == "":
		v.typing, v.problem = false, ""
	case k == keyBack:
		runes := []rune(v.typed)
		v.typed, v.problem = string(runes[:len(runes)-1]), ""
	case k < keyUp && len(v.typed) < maxTyped:
		v.typed, v.problem = v.typed+string(k), ""
	}
}

// draw makes the lines of a screen.
func (v *view) draw(width, height int) []line {
	lines := []line{v.titleLine(width), v.accountLine(width)}
	body := max(0, height-3)
	switch {
	case v.help:
		lines = append(lines, helpLines(width, body)...)
	case len(v.drilled) > 0:
		lines = append(lines, v.functionLines(width, body)...)
	default:
		lines = append(lines, v.overviewLines(width, body)...)
	}
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	return append(lines[:max(0, height-1)], v.footLine(width))
}

func (v *view) titleLine(width int) line {
	text := fmt.Sprintf(" pilotlight  %s, %d Hz, last %.0f s", v.options.Target, v.options.FrequencyHz, v.all.Duration.Seconds())
	state := ""
	if v.options.State != nil {
		state = v.options.State()
	}
	if v.paused {
		state = "paused"
	}
	if state != "" {
		state = " " + state + " "
	}
	return line{{pad(text, width-len(state)), title}, {state, warning}}
}

func (v *view) accountLine(width int) line {
	a := &v.all.Account
	if a.Exported == 0 {
		return line{{fit(" no samples yet: what is sampled did not run on a CPU", width), dim}}
	}
	c := &v.completed
	all := flame.Weight{}
	for i := range v.all.Samples {
		all.Samples += v.all.Samples[i].Count
		all.Value += v.all.Samples[i].Value
	}
	text := ""
	if v.all.Type == profile.TypeCPU {
		text = fmt.Sprintf(" %.2f CPUs ", cpus(v.all, all, all))
	}
	var lost uint64
	for _, l := range a.Lost {
		lost += l.Count
	}
	text += fmt.Sprintf(" %s samples  %s lost  %.1f %% whole stacks  %.1f %% named frames",
		number(a.Exported), number(lost), 100*ratio(c.Whole, c.Stacks), 100*ratio(c.Named, c.Frames))
	return line{{fit(text, width), plain}}
}

func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// overviewLines are the processes, and the functions of one or all.
func (v *view) overviewLines(width, height int) []line {
	shown := max(1, min(len(v.processes), height/3, height-6))
	lines := []line{nil, v.head(upper, "   CPU       PID  PROCESS           HOTTEST FUNCTION", width)}
	for _, i := range v.visible(upper, shown) {
		p := &v.processes[i]
		text := fmt.Sprintf(" %s %8d  %s  %s", percentage(cpus(v.all, p.weight, v.table.Total)), p.pid, pad(p.comm, 16), fit(p.hottest, width-37))
		lines = append(lines, v.row(upper, i, width, line{{text, plain}}))
	}
	of := ""
	if v.pid != 0 {
		of = fmt.Sprintf(" of %s (%d)", fit(v.comm, 16), v.pid)
	}
	if v.pattern != nil {
		of += " with /" + fit(v.pattern.String(), 20) + "/"
	}
	lines = append(lines, nil, v.head(lower, "   SELF    TOTAL        FUNCTIONS"+of, width))
	return append(lines, v.functionRows(width, height-len(lines))...)
}

func (v *view) functionRows(width, height int) (lines []line) {
	for _, i := range v.visible(lower, height) {
		r := &v.rows[i]
		self := partOf(r.Self, v.table.Total)
		lines = append(lines, v.row(lower, i, width, line{
			{" " + percentage(self) + "  " + percentage(partOf(r.Total, v.table.Total)) + "  ", plain},
			{bar(self), hot},
			{" " + pad(r.Name, width-25-moduleWidth(width)), toneOf(r.Kind)},
			{module(r.Module, width), dim},
		}))
	}
	if len(v.rows) == 0 && v.pattern != nil {
		lines = append(lines, line{{"  no function matches", dim}})
	}
	return lines
}

// functionLines are a function with its callers and callees.
func (v *view) functionLines(width, height int) []line {
	all := v.table.Total
	lines := []line{
		nil,
		{{" " + fit(v.self.Name, width-2), heading}},
		{{fit(fmt.Sprintf(" %s in itself, %s with what it calls  %s",
			strings.TrimSpace(percentage(partOf(v.self.Self, all))), strings.TrimSpace(percentage(partOf(v.self.Total, all))), v.self.Module), width), dim}},
	}
	upperRows := max(1, min(len(v.callers), (height-len(lines)-4)/2))
	lines = append(lines, nil, v.head(upper, "  TOTAL        CALLERS", width))
	lines = append(lines, v.neighbourRows(upper, v.callers, width, upperRows)...)
	lines = append(lines, nil, v.head(lower, "  TOTAL        CALLEES", width))
	return append(lines, v.neighbourRows(lower, v.callees, width, height-len(lines))...)
}

func (v *view) neighbourRows(p pane, list []flame.Neighbour, width, height int) (lines []line) {
	for _, i := range v.visible(p, height) {
		n := &list[i]
		part := partOf(n.Weight, v.table.Total)
		lines = append(lines, v.row(p, i, width, line{
			{" " + percentage(part) + "  ", plain}, {bar(part), hot},
			{" " + pad(n.Name, width-16-moduleWidth(width)), toneOf(n.Kind)}, {module(n.Module, width), dim},
		}))
	}
	if len(list) == 0 {
		lines = append(lines, line{{"  none", dim}})
	}
	return lines
}

// visible are the rows of a pane that fit, with the selected one among them.
func (v *view) visible(p pane, height int) (rows []int) {
	first := max(0, v.at[p]-height+1)
	for i := first; i < v.length(p) && i < first+height; i++ {
		rows = append(rows, i)
	}
	return rows
}

// head is the heading of a pane; a mark shows which one the keys act on.
func (v *view) head(p pane, text string, width int) line {
	mark := " "
	if p == v.pane {
		mark = ">"
	}
	return line{{mark + fit(text[1:], width-1), heading}}
}

// row marks the selected row.
func (v *view) row(p pane, i, width int, l line) line {
	if p != v.pane || i != v.at[p] {
		return l
	}
	text := ""
	for _, s := range l {
		text += s.text
	}
	return line{{pad(text, width), selected}}
}

// bar draws a share: five columns, to an eighth of one.
func bar(share float64) string {
	const columns = 5
	eighths := int(math.Round(min(max(share, 0), 1) * columns * 8))
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return pad(text, columns)
}

// moduleWidth is how much of a line the module takes.
func moduleWidth(width int) int { return max(0, min(24, (width-40)/3)) }

func module(name string, width int) string {
	w := moduleWidth(width)
	if w < 4 {
		return ""
	}
	return "  " + fit(strings.Trim(name, "[]"), w-2)
}

func toneOf(k flame.Kind) tone {
	switch k {
	case flame.KindUnknown, flame.KindTruncated:
		return dim
	}
	return plain
}

func (v *view) footLine(width int) line {
	switch {
	case v.typing && v.problem != "":
		return line{{fit(" /"+v.typed+"  "+v.problem, width), warning}}
	case v.typing:
		return line{{fit(" /"+v.typed+"_  functions that match; enter applies, esc ends", width), plain}}
	}
	keys := " ↑↓ select  tab list  enter go in  esc back  / filter  p pause  ? help  q quit"
	return line{{fit(keys, width), dim}}
}

func helpLines(width, height int) []line {
	lines := []line{nil}
	for text := range strings.SplitSeq(strings.Trim(`
 The upper list has the processes, the lower one the functions in which most
 samples were taken. SELF is in the function itself, TOTAL also in what it
 called. CPU is of one CPU: 200 % is two.

   ↑ ↓ k j         select           page up, down    ten rows
   home end        first, last row  tab              the other list
   enter           a process: its functions; a function: its callers and
                   callees, and so on through the stacks
   esc backspace   back
   /               show only functions that match a regular expression
   p space         pause: nothing new is shown, though it is sampled
   q ctrl-c        quit

 Grey are addresses without a name, and places where callers are missing.
`, "\n"), "\n") {
		lines = append(lines, line{{fit(text, width), plain}})
	}
	return lines[:min(len(lines), height)]
}
