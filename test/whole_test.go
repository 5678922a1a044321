// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A shape is how the stacks of a workload have to look, outermost function first: root, between, a path, inside; and a handler on top of
// all where a signal has interrupted it. Names are whole ones, patterns are for whole names.
type shape struct {
	root    []*regexp.Regexp // all of them
	between *regexp.Regexp   // any number of them; nil is none
	// paths are the functions of the program that call one another: a stack goes along one of them to its end, or as far as it has come. Those
	// before the function named alone call others too, all if that is "".
	paths [][]string
	alone string
	// inside are those that the last of a path calls; nil is none.
	inside  *regexp.Regexp
	handler []string
	// torn are functions within which return addresses and saved registers are overwritten: up to maxTorn of the stacks may be wrong there, beside the one in a
	// hundred that may be wrong anywhere.
	torn *regexp.Regexp
}

const maxTorn = 0.06

func patterns(names ...string) []*regexp.Regexp {
	var list []*regexp.Regexp
	for _, name := range names {
		list = append(list, pattern(name))
	}
	return list
}

func pattern(name string) *regexp.Regexp { return regexp.MustCompile("^(?s:" + name + ")$") }

// What calls the first function of a program, or of a thread of it. Functions of libc have several names for one address.
var (
	glibcStart  = patterns("_start", "__libc_start_main.*", "__libc_start_call_main")
	glibcThread = patterns("(__|__GI___)?clone3?|thread_start", "start_thread")
	// musl tells nothing of its functions, but what calls main is known to return to nobody.
	muslStart = patterns("libc_start_main_stage2")
	rustStart = pattern("main|(std|core)::.*|<.* as (std|core)::.*|deep::main::.*")
	// The frame of a signal.
	trampoline = pattern(`__restore_rt|__kernel_rt_sigreturn|\[(libc.so.6|deep-musl)\+.*`)
)

// stub is a procedure linkage table's, by which libc is called: it has no name.
const stub = `\[deep\+.*`

// check says what is wrong with a stack, outermost function first; reached whether it goes to the end of a path.
func (s shape) check(stack []string) (reached bool, err error) {
	if len(stack) == 0 {
		return false, fmt.Errorf("no frames")
	}
	for _, want := range s.root {
		if len(stack) == 0 || !want.MatchString(stack[0]) {
			return false, fmt.Errorf("not from %v", want)
		}
		stack = stack[1:]
	}
	for s.between != nil && len(stack) > 0 && s.between.MatchString(stack[0]) {
		stack = stack[1:]
	}
	if len(s.handler) > 0 {
		if stack, err = s.beforeSignal(stack); err != nil {
			return false, err
		}
	}
	for i, path := range s.paths {
		end, wrong := s.along(path, stack)
		if i == 0 || wrong == nil && (err != nil || end) {
			reached, err = end, wrong
		}
	}
	return reached, err
}

// beforeSignal takes the handler and its frame from a stack.
func (s shape) beforeSignal(stack []string) ([]string, error) {
	at := slices.Index(stack, s.handler[0])
	if at < 0 {
		at = len(stack)
	}
	if handler := stack[at:]; len(handler) > len(s.handler) || !slices.Equal(handler, s.handler[:len(handler)]) {
		return nil, fmt.Errorf("handler %v", handler)
	}
	switch {
	case at > 0 && trampoline.MatchString(stack[at-1]):
		at--
	case at < len(stack):
		return nil, fmt.Errorf("no frame of the signal")
	}
	return stack[:at], nil
}

func (s shape) along(path, stack []string) (reached bool, err error) {
	n := 0
	for n < len(path) && n < len(stack) && path[n] == stack[n] {
		n++
	}
	rest := stack[n:]
	switch {
	case n == 0:
		return false, fmt.Errorf("%v does not begin with %s", stack[:min(3, len(stack))], path[0])
	case n == len(path):
		for _, name := range rest {
			if s.inside == nil || !s.inside.MatchString(name) {
				return true, fmt.Errorf("%s does not call %s", path[n-1], name)
			}
		}
		return true, nil
	case len(rest) == 0:
		return false, nil
	case s.alone != "" && n > slices.Index(path, s.alone):
		return false, fmt.Errorf("%s does not call %s", path[n-1], rest[0])
	}
	for _, name := range rest {
		if slices.Contains(path, name) {
			return false, fmt.Errorf("%s is missing between %s and %s", path[n], path[n-1], name)
		}
	}
	return false, nil
}

// levels are level_00 to the one given, between what is outside and inside of them.
func levels(outside []string, last int, inside string) []string {
	path := slices.Clone(outside)
	for i := range last + 1 {
		path = append(path, fmt.Sprintf("level_%02d", i))
	}
	return append(path, inside)
}

// The stacks of programs without frame pointers are whole: they reach the root, and every caller is there.
func TestWhole(t *testing.T) {
	mainRun := []string{"main", "run"}
	chain := shape{root: glibcStart, paths: [][]string{levels(mainRun, 29, "spin")}, alone: "level_00"}
	in := func(s shape, change func(*shape)) shape { change(&s); return s }
	handled := func(s *shape) { s.handler = []string{"on_alarm", "alarm_outer", "alarm_inner"} }
	throws := []string{"main", "run", "catching"}
	for i := range 10 {
		throws = append(throws, fmt.Sprintf("frame_%d", i))
	}
	var rust []string
	for _, name := range levels([]string{"main"}, 29, "spin") {
		rust = append(rust, "deep::"+name)
	}
	// Where an exception lands, these write what the handler shall find in its registers over what they saved themselves, the return address too,
	// which their call frame information says is there still: docs/unwinding.md. That takes 3 to 5 % of the time of a program that does nothing else.
	thrown := shape{
		root: glibcStart, paths: [][]string{throws}, inside: pattern(".*"),
		torn: pattern("_Unwind_(RaiseException|Resume|Resume_or_Rethrow)(@.*)?"),
	}
	// Some thousands of exceptions a second are far below one sample in a hundred.
	working := in(thrown, func(s *shape) { s.torn = nil })

	for name, c := range map[string]struct {
		args []string
		shape
	}{
		"deep":            {nil, chain},
		"deep-O3":         {nil, chain},
		"deep-clang":      {nil, chain},
		"deep-clang-O3":   {nil, chain},
		"deep-no-pie":     {nil, chain},
		"deep-static":     {nil, chain},
		"deep-static-pie": {nil, chain},
		"deep-musl":       {nil, in(chain, func(s *shape) { s.root = muslStart })},
		"deep-rust":       {nil, shape{root: glibcStart, between: rustStart, paths: [][]string{rust}, alone: "deep::level_00"}},

		"deep signal":        {[]string{"signal"}, in(chain, handled)},
		"deep-static signal": {[]string{"signal"}, in(chain, handled)},
		"deep-musl signal":   {[]string{"signal"}, in(chain, func(s *shape) { handled(s); s.root = muslStart })},
		"deep altstack":      {[]string{"altstack"}, in(chain, handled)},
		"deep recursion": {[]string{"recursion"}, shape{
			root: glibcStart, paths: [][]string{slices.Concat(mainRun, slices.Repeat([]string{"recurse"}, 900), []string{"spin"})}, alone: "recurse",
		}},
		"deep threads":      {[]string{"threads"}, shape{root: glibcThread, paths: [][]string{levels([]string{"worker"}, 29, "spin")}, alone: "level_00"}},
		"deep-musl threads": {[]string{"threads"}, shape{root: patterns("start"), paths: [][]string{levels([]string{"worker"}, 29, "spin")}, alone: "level_00"}},
		"deep clocks": {[]string{"clocks"}, shape{
			root: glibcStart, paths: [][]string{levels(mainRun, 9, "clocks")}, alone: "level_00",
			inside: pattern("(__|__GI___|__vdso_|__kernel_)?clock_gettime(@.*)?|" + stub),
		}},
		"deep syscalls": {[]string{"syscalls"}, shape{
			root: glibcStart, paths: [][]string{levels(mainRun, 9, "syscalls")}, alone: "level_00",
			inside: pattern("(__|__GI_|__GI___)?(libc_)?(read|getppid)|" + stub),
		}},
		"throws":        {nil, thrown},
		"throws-clang":  {nil, thrown},
		"throws-static": {nil, thrown},
		"throws work":   {[]string{"100000"}, working},
		"reload": {[]string{build(t, "layers-first.so"), build(t, "layers-second.so")}, shape{
			root: glibcStart, alone: "call",
			paths: [][]string{
				{"main", "run", "call", "enter", "first_outer", "first_inner", "first_spin"},
				{"main", "run", "call", "enter", "second_outer", "second_inner", "second_spin"},
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			workload, _, _ := strings.Cut(name, " ")
			w := start(t, build(t, workload), c.args...)
			time.Sleep(100 * time.Millisecond)
			recorded := func() recording { return record(t, "-p", strconv.Itoa(w.pid()), "-F", rate(), "-d", "4s") }
			if c.checkAll(t, recorded(), name == "reload") {
				c.checkAll(t, recorded(), false)
			}
		})
	}
}

// The stacks of a Go build are whole, of processes that live for half a second, with frames larger than a copy, and from where the runtime makes a goroutine's
// stack larger back into the goroutine.
func TestWholeGo(t *testing.T) {
	t.Setenv("GOCACHE", t.TempDir())
	r := record(t, "-F", "199", "--", "go", "build", "-o", os.DevNull, "../symbolizer/elfsym")
	checkConservation(t, r.profile)
	var samples, whole, larger, back int64
	ends := map[string]int64{}
	for _, sample := range r.profile.Sample {
		all, n := frames(sample), sample.Value[0]
		outermost := all[len(all)-1].name
		samples += n
		if strings.HasPrefix(outermost, "[truncated: ") {
			ends[outermost] += n
		} else {
			whole += n
		}
		at := slices.IndexFunc(all, func(f frame) bool { return f.name == "runtime.newstack" })
		if at < 0 {
			continue
		}
		larger += n
		if !strings.HasPrefix(all[min(at+2, len(all)-1)].name, "[truncated: ") && at+2 < len(all) { // beyond morestack
			back += n
		}
	}
	t.Logf("%d of %d stacks are whole (%.2f %%); %d of %d lead back from where a stack is made larger", whole, samples, 100*float64(whole)/float64(max(1, samples)), back, larger)
	if samples < 500 || float64(whole) < 0.98*float64(samples) {
		t.Errorf("%d of %d stacks are whole; the others: %v", whole, samples, ends)
	}
	if runtime.GOARCH == "amd64" && float64(back) <= 0.25*float64(larger) { // of copied stacks they do not
		t.Errorf("%d of %d stacks lead back from where a stack is made larger", back, larger)
	}
}

// late is how a stack ends of which the recorder did not know the code in time.
var late = pattern(`\[truncated: (stale mapping|cold limited|table pending)\]`)

// checkAll checks all stacks of a recording. If that may be made again, too many that came too late are no error: true says that there were. It may once of a process
// whose code is replaced all the time: on a machine that lets the recorder run too seldom that is more often than it can look, and then it says so.
func (s shape) checkAll(t *testing.T, r recording, mayRepeat bool) (repeat bool) {
	t.Helper()
	checkConservation(t, r.profile)
	var samples, whole, reached, torn, tooLate int64
	wrong := map[string]int64{}
	for _, sample := range r.profile.Sample {
		var stack []string
		for _, f := range slices.Backward(user(frames(sample))) {
			stack = append(stack, strings.TrimSuffix(f.name, ".cold")) // what gcc has split from a function
		}
		samples += sample.Value[0]
		end, err := s.check(stack)
		if err != nil && s.torn != nil && slices.ContainsFunc(stack, s.torn.MatchString) {
			torn += sample.Value[0]
			continue
		}
		if err != nil && len(stack) > 0 && late.MatchString(stack[0]) {
			tooLate += sample.Value[0]
		}
		if err != nil {
			wrong[fmt.Sprintf("%v: %v", err, stack)] += sample.Value[0]
			continue
		}
		whole += sample.Value[0]
		if end {
			reached += sample.Value[0]
		}
	}
	t.Logf("%d of %d stacks are whole (%.2f %%), %d torn, %d from the root to the innermost function", whole, samples, 100*float64(whole)/float64(max(1, samples)), torn, reached)
	if bad := samples - whole - torn; mayRepeat && float64(bad) > 0.01*float64(samples) && float64(bad-tooLate) <= 0.01*float64(samples-tooLate) {
		t.Logf("%d came too late", tooLate)
		return true
	}
	if samples < 20 || float64(samples-whole-torn) > 0.01*float64(samples) || float64(torn) > maxTorn*float64(samples) {
		worst := slices.SortedFunc(maps.Keys(wrong), func(a, b string) int { return int(wrong[b] - wrong[a]) })
		for _, what := range worst[:min(5, len(worst))] {
			t.Errorf("%d times %.1000s", wrong[what], what)
		}
		t.Errorf("%d of %d stacks are whole, %d torn", whole, samples, torn)
	}
	if reached < samples/5 {
		t.Errorf("%d of %d stacks reach the innermost function", reached, samples)
	}
	return false
}

// A shape tells whole stacks from those that lack something.
func TestShape(t *testing.T) {
	s := shape{
		root: patterns("_start", "start_main"), paths: [][]string{{"main", "run", "one", "two", "leaf"}, {"main", "run", "other"}}, alone: "one",
		inside: pattern("libc"), handler: []string{"on_alarm", "inner"},
	}
	for stack, want := range map[string]struct{ whole, reached bool }{
		"_start start_main main run one two leaf":                                  {true, true},
		"_start start_main main run one two leaf libc":                             {true, true},
		"_start start_main main run one":                                           {true, false},
		"_start start_main main run other":                                         {true, true},
		"_start start_main main dlopen open":                                       {true, false},
		"_start start_main main run one two leaf __restore_rt on_alarm inner":      {true, true},
		"_start start_main main run one __restore_rt on_alarm":                     {true, false},
		"_start start_main main run one two leaf __restore_rt":                     {true, true},
		"start_main main run one two leaf":                                         {},
		"main run one two leaf":                                                    {},
		"[truncated] one two leaf":                                                 {},
		"_start start_main run one two leaf":                                       {},
		"_start start_main main one two leaf":                                      {},
		"_start start_main main run one leaf":                                      {},
		"_start start_main main run one libc":                                      {},
		"_start start_main main run one one two leaf":                              {},
		"_start start_main main run one two leaf other":                            {},
		"_start start_main main run one two leaf on_alarm inner":                   {},
		"_start start_main main run one two leaf __restore_rt inner":               {},
		"_start start_main main run two leaf __restore_rt on_alarm inner":          {},
		"_start start_main main run one two leaf __restore_rt on_alarm inner libc": {},
		"": {},
	} {
		reached, err := s.check(strings.Fields(stack))
		if whole := err == nil; whole != want.whole || whole && reached != want.reached {
			t.Errorf("%q: reached %t, %v, want %+v", stack, reached, err, want)
		}
	}
}

// rate is how often to sample, in Hz. An emulated machine takes long to compile the first tables, and may copy so many stacks meanwhile.
func rate() string {
	if os.Getenv("PILOTLIGHT_WORKLOADS") != "" {
		return "99"
	}
	return "499"
}
