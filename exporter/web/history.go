package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/terminal"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// History answers queries about the past. *store.Reader is one.
type History interface {
	Read(ctx context.Context, q query.Query, labels ...string) (*profile.Profile, *store.Answer, error)
	Stacks(ctx context.Context, q query.Query) (*store.Stacks, *store.Answer, error)
	Series(ctx context.Context, q query.Query, step time.Duration) (*store.Series, *store.Answer, error)
	Heatmap(ctx context.Context, q query.Query, step time.Duration) (*store.Series, *store.Answer, error)
	Groups(ctx context.Context, q query.Query, labels ...string) ([]store.Group, *store.Answer, error)
}

//go:embed assets/openapi.yaml
var openAPI []byte

const (
	// maxQueries are answered at once. Of a week of a busy host a tree or a table takes 140 MB, and what is made of whole profiles 670 MB: downloads, callers,
	// comparisons (docs/history.md).
	maxQueries = 2
	// queryWait is how long one waits for its turn before it is turned away.
	queryWait = 5 * time.Second
	// queryTimeout ends what reads too much. With queryWait it is less than writeTimeout.
	queryTimeout = 20 * time.Second

	defaultRange = 15 * time.Minute
	// maxNodes bound a tree, maxRows a table: what is lighter is left out, and counted.
	defaultNodes, maxNodes = 10_000, 200_000
	defaultRows, maxRows   = 100, 100_000
	defaultSteps           = 200
	defaultCells           = 90_000
)

// historyQuery is what was asked of the history.
type historyQuery struct {
	query.Query
	history History       // that is asked
	live    bool          // of memory, not of the history
	step    time.Duration // 0: to be chosen
	limit   int           // 0: to be chosen
	format  string        // of a download; "": pprof
	// Of a comparison: the time before, and what is compared.
	before query.Query
	scale  flame.Scale
}

// historyParameter is one beyond those of the language.
type historyParameter struct {
	name, help string
	parse      func(q *historyQuery, value string, now time.Time) error
}

// targetParameters are those of live profiles, which mean conditions here.
var targetParameters = []historyParameter{
	{"pid", "", func(q *historyQuery, v string, _ time.Time) error {
		var live liveQuery
		if err := parsePIDs(&live, v); err != nil {
			return err
		}
		pids := make([]string, len(live.filter.PIDs))
		for i, pid := range live.filter.PIDs {
			pids[i] = strconv.Itoa(pid)
		}
		return q.add("pid", query.Match, strings.Join(pids, "|"))
	}},
	{"comm", "", func(q *historyQuery, v string, _ time.Time) error {
		var live liveQuery
		if err := parseComm(&live, v); err != nil {
			return err
		}
		return q.add("comm", query.Match, ".*(?:"+v+").*")
	}},
	{"cgroup", "", func(q *historyQuery, v string, _ time.Time) error {
		path := host{"/proc"}.pastCgroup(v)
		if path == "" {
			return nil // all are below the root
		}
		return q.add("cgroup", query.Match, regexp.QuoteMeta(path)+"(?:/.*)?")
	}},
	{"container", "", func(q *historyQuery, v string, _ time.Time) error {
		var live liveQuery
		if err := parseContainer(&live, v); err != nil {
			return err
		}
		return q.add("container_id", query.Match, live.filter.ContainerID+".*")
	}},
}

func (q *historyQuery) add(label string, op query.Op, value string) error {
	c, err := query.NewCondition(label, op, value)
	if err != nil {
		return err
	}
	q.Filter = append(q.Filter, c)
	return nil
}

var stepParameter = historyParameter{"step", "", func(q *historyQuery, v string, _ time.Time) (err error) {
	if q.step, err = time.ParseDuration(v); err != nil || q.step <= 0 {
		return fmt.Errorf("step=%s is no duration: give one such as 10s or 10ms", query.Quote(v))
	}
	return nil
}}

// liveParameter asks for what is in memory: it costs little, and is there without a history.
var liveParameter = historyParameter{"live", "", func(q *historyQuery, v string, _ time.Time) (err error) {
	if q.live, err = strconv.ParseBool(v); err != nil {
		return fmt.Errorf("live=%s is neither true nor false: give live=true for the last minute, as it is in memory", query.Quote(v))
	}
	return nil
}}

var formatParameter = historyParameter{"format", "", func(q *historyQuery, v string, _ time.Time) error {
	if _, ok := downloads[v]; !ok {
		return fmt.Errorf("format=%s: give %s", query.Quote(v), strings.Join(slices.Sorted(maps.Keys(downloads)), ", "))
	}
	q.format = v
	return nil
}}

func limitParameter(most int) historyParameter {
	return historyParameter{"limit", "", func(q *historyQuery, v string, _ time.Time) (err error) {
		if q.limit, err = strconv.Atoi(v); err != nil || q.limit < 1 || q.limit > most {
			return fmt.Errorf("limit=%s is out of range: give a number from 1 to %d", query.Quote(v), most)
		}
		return nil
	}}
}

var diffParameters = []historyParameter{
	{"before_from", "", func(q *historyQuery, v string, now time.Time) (err error) {
		q.before.From, err = query.ParseTime(v, now)
		return err
	}},
	{"before_to", "", func(q *historyQuery, v string, now time.Time) (err error) {
		q.before.To, err = query.ParseTime(v, now)
		return err
	}},
	{"scale", "", func(q *historyQuery, v string, _ time.Time) error {
		if q.scale = flame.Scale(v); q.scale != flame.ByShare && q.scale != flame.ByTime {
			return fmt.Errorf("scale=%s: give %s or %s", query.Quote(v), flame.ByShare, flame.ByTime)
		}
		return nil
	}},
}

// isHistory says whether a download is one of the past: a filter alone asks for it, beside a number of seconds it does not.
func isHistory(raw string) bool {
	values, err := url.ParseQuery(raw)
	return err == nil && (values.Has("from") || values.Has("to") || values.Has("filter") && !values.Has("seconds"))
}

// parse is parseHistory for what is shown here: of files the last one is meant without a time, and its end is now.
func (s *Server) parse(raw string, allowed []string, more []historyParameter) (*historyQuery, error) {
	if len(s.files) == 0 {
		return parseHistory(raw, time.Now(), defaultRange, allowed, more)
	}
	last := s.files[len(s.files)-1]
	return parseHistory(raw, last.To, last.To.Sub(last.From), allowed, more)
}

// parseHistory reads the part of a URL behind the question mark; allowed are the names of the language that the
// endpoint takes. Without a time the last one of the usual length is meant. Its errors are refusals.
func parseHistory(raw string, now time.Time, usual time.Duration, allowed []string, more []historyParameter) (*historyQuery, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("the query %s is malformed: give name=value pairs separated by &", query.Quote(raw))
	}
	q := new(historyQuery)
	more = append(more[:len(more):len(more)], targetParameters...)
	// The filter first: conditions of other parameters are added to it.
	names := slices.Sorted(maps.Keys(values))
	if i := slices.Index(names, "filter"); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, "filter")
	}
	for _, name := range names {
		given := values[name]
		switch {
		case len(given) != 1:
			return nil, badRequest("%s is given %d times: give it once", query.Quote(name), len(given))
		case given[0] == "":
			return nil, badRequest("%s is empty: leave it out or give a value", query.Quote(name))
		case name == "children":
			var live liveQuery
			if err := parseChildren(&live, given[0]); err != nil {
				return nil, err
			}
			if live.filter.Children {
				return nil, badRequest("children is not known of the past, which does not keep whose child a process was: leave it out, or give cgroup=... or comm=...")
			}
			continue
		case name == "seconds":
			return nil, badRequest("seconds collects from now on, and from and to ask the history: give one or the other")
		}
		if i := slices.IndexFunc(more, func(p historyParameter) bool { return p.name == name }); i >= 0 {
			err = more[i].parse(q, given[0], now)
		} else if slices.Contains(allowed, name) {
			err = q.Set(name, given[0], now)
		} else {
			known := slices.Clone(allowed)
			for _, p := range more {
				known = append(known, p.name)
			}
			return nil, badRequest("there is no parameter %s here: accepted are %s", query.Quote(name), strings.Join(known, ", "))
		}
		if refused := (*refusal)(nil); errors.As(err, &refused) {
			return nil, refused
		} else if err != nil {
			return nil, badRequest("%v", err)
		}
	}
	if q.To.IsZero() {
		q.To = now
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-usual)
	}
	if err := q.Check(); err != nil {
		return nil, badRequest("%v", err)
	}
	return q, nil
}

// What endpoints take of the language.
var (
	ofRows   = []string{"from", "to", "type", "filter"}
	ofStacks = append(slices.Clone(ofRows), "focus", "ignore", "hide", "by")
	ofSeries = append(slices.Clone(ofRows), "focus", "ignore", "by")

	ofProcesses = append(slices.Clone(ofRows), "focus", "ignore")
)

// routeHistory adds what asks the history.
func (s *Server) routeHistory(mux *http.ServeMux) {
	mux.HandleFunc("/api/v1/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI) // a client that went away is its own business
	})
	mux.HandleFunc("/api/v1/reasons", func(w http.ResponseWriter, r *http.Request) {
		s.sendJSON(w, r, struct {
			Reasons []reason `json:"reasons"`
		}{reasons})
	})
	mux.HandleFunc("/api/v1/profile", func(w http.ResponseWriter, r *http.Request) {
		s.pastProfile(w, r, liveParameter, formatParameter)
	})
	rows, nodes := limitParameter(maxRows), limitParameter(maxNodes)
	mux.HandleFunc("/api/v1/tree", s.ask(ofStacks, []historyParameter{liveParameter, nodes}, s.tree))
	mux.HandleFunc("/api/v1/top", s.ask(ofStacks, []historyParameter{liveParameter, rows}, s.top))
	mux.HandleFunc("/api/v1/callers", s.ask(append(slices.Clone(ofStacks), "function"), []historyParameter{liveParameter, rows}, s.callers))
	mux.HandleFunc("/api/v1/series", s.ask(ofSeries, []historyParameter{liveParameter, stepParameter}, s.series))
	mux.HandleFunc("/api/v1/heatmap", s.ask(ofSeries, []historyParameter{liveParameter, stepParameter}, s.heatmap))
	mux.HandleFunc("/api/v1/labels", s.ask(ofSeries, []historyParameter{liveParameter, rows}, s.labels))
	mux.HandleFunc("/api/v1/processes", s.ask(ofProcesses, []historyParameter{liveParameter, rows}, s.processes))
	mux.HandleFunc("/api/v1/diff", s.ask(ofStacks, append(diffParameters, rows), s.diff))
	mux.HandleFunc("/api/v1/difftree", s.ask(ofStacks, append(diffParameters, nodes), s.diffTree))
}

// ask answers with what make gives, as JSON.
func (s *Server) ask(allowed []string, more []historyParameter, make func(context.Context, *historyQuery) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := s.parse(r.URL.RawQuery, allowed, more)
		if err == nil {
			err = s.limited(r.Context(), q, func(ctx context.Context) error {
				body, err := s.made(ctx, q, make)
				if err != nil {
					return err
				}
				writeJSON(w, r, body)
				return nil
			})
		}
		if err != nil {
			s.refuseQuery(w, r, err)
		}
	}
}

// made makes an answer, which takes its time.
func (s *Server) made(ctx context.Context, q *historyQuery, make func(context.Context, *historyQuery) (any, error)) ([]byte, error) {
	defer s.hurry(q)()
	answer, err := make(ctx, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

func (s *Server) read(ctx context.Context, q *historyQuery) (*profile.Profile, *store.Answer, error) {
	defer s.hurry(q)()
	return q.history.Read(ctx, q.Query, query.Labels...)
}

// hurry is not for what is in memory, which is asked for once a second.
func (s *Server) hurry(q *historyQuery) (done func()) {
	if s.options.Hurry == nil || q.live {
		return func() {}
	}
	return s.options.Hurry()
}

// writeJSON zips what goes to another machine. On this one that would cost more than it saves.
func writeJSON(w http.ResponseWriter, r *http.Request, body []byte) {
	const small = 4 << 10
	w.Header().Set("Content-Type", "application/json")
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !remote.Addr().Unmap().IsLoopback() && len(body) > small && takesZipped(r) {
		w.Header().Set("Content-Encoding", "gzip")
		body = zip(body, gzip.BestSpeed)
	}
	_, _ = w.Write(body) // a client that went away is its own business
}

// errBusy and errNoHistory are why a query is not begun.
var (
	errBusy      = fmt.Errorf("%d queries are being answered, as many as this agent answers at once: try again later", maxQueries)
	errNoHistory = errors.New("this agent keeps no history: start it without --no-history, and with a --data-dir that it can write to")
)

// limited runs a query when it is its turn, for a bounded time. It says what is asked. It sends the answer too: one that waits for a slow client takes as
// much memory as one that is being made, for writeTimeout at most.
func (s *Server) limited(ctx context.Context, q *historyQuery, run func(context.Context) error) error {
	q.history = s.options.History
	if q.live {
		now := s.recent.memory()
		q.history = now
		q.From, q.To = now.span()
	}
	if q.history == nil {
		return errNoHistory
	}
	select {
	case s.queries <- struct{}{}:
		defer func() { <-s.queries }()
	case <-time.After(queryWait):
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	return run(ctx)
}

func (s *Server) refuseQuery(w http.ResponseWriter, r *http.Request, err error) {
	refused := (*refusal)(nil)
	switch {
	case r.Context().Err() != nil: // nobody is there to read it
	case errors.As(err, &refused):
		s.refuse(w, err)
	case errors.Is(err, errNoHistory):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, store.ErrStep) || errors.Is(err, store.ErrTooMany) || errors.Is(err, query.ErrNotKept):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		http.Error(w, err.Error(), http.StatusTooManyRequests)
	case errors.Is(err, context.DeadlineExceeded):
		http.Error(w, fmt.Sprintf("the query took longer than %s and was ended: ask for a shorter time, or a narrower filter", queryTimeout), http.StatusServiceUnavailable)
	case s.stopping.Err() != nil:
		http.Error(w, "the agent is stopping", http.StatusServiceUnavailable)
	default:
		s.options.Log.Error("cannot answer a query", "err", err)
		http.Error(w, "the query could not be answered: "+err.Error(), http.StatusInternalServerError)
	}
}

// pastProfile sends a profile of the history, or of the memory.
func (s *Server) pastProfile(w http.ResponseWriter, r *http.Request, more ...historyParameter) {
	w.Header().Set("X-Go-Pprof", "1")
	q, err := s.parse(r.URL.RawQuery, ofStacks, more)
	if err != nil {
		s.refuse(w, err)
		return
	}
	as := downloads[cmp.Or(q.format, "pprof")]
	if r.Method == http.MethodHead {
		as.setHeader(w.Header())
		return
	}
	err = s.limited(r.Context(), q, func(ctx context.Context) error {
		p, answer, err := s.read(ctx, q)
		if err != nil {
			return err
		}
		for _, warning := range answer.Warnings {
			s.options.Log.Warn("a part of the history is left out of a download", "err", warning)
		}
		selected := flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By)
		if !as.streamed {
			var body bytes.Buffer
			if err := as.write(&body, selected, p.Completeness(), terminal.Warnings(answer)...); err != nil {
				return err
			}
			lacks(w, answer)
			as.send(w, &body)
			return nil
		}
		lacks(w, answer)
		as.setHeader(w.Header())
		if err := as.write(w, selected, profile.Completeness{}, terminal.Warnings(answer)...); err != nil {
			s.options.Log.Debug("a client did not take all of a download", "err", err)
			panic(http.ErrAbortHandler) // so that it sees that there was more
		}
		return nil
	})
	if err != nil {
		s.refuseQuery(w, r, err)
	}
}

// lacks tells a client that a profile is not all that was asked for. Who reads the profile learns it by its comments.
func lacks(w http.ResponseWriter, answer *store.Answer) {
	w.Header().Set("X-Pilotlight-Warnings", strconv.Itoa(len(answer.Warnings)))
}

// about is what every answer says.
type about struct {
	Query    string   `json:"query"`    // as it was understood, with absolute times
	Warnings []string `json:"warnings"` // what could not be read
}

func newAbout(q *historyQuery, answers ...*store.Answer) about {
	a := about{Query: q.Query.String(), Warnings: []string{}}
	for _, answer := range answers {
		for _, w := range answer.Warnings {
			a.Warnings = append(a.Warnings, strings.ToValidUTF8(w.Error(), "\uFFFD"))
		}
	}
	return a
}

// found is what answers say of the profile that they are made of.
type found struct {
	Start   time.Time         `json:"start"` // of the first span that is in it
	Seconds float64           `json:"seconds"`
	Type    string            `json:"type"`
	Unit    string            `json:"unit"`
	Period  int64             `json:"period"`
	Lost    map[string]uint64 `json:"lost"` // samples by reason, whosever they were
	Total   flame.Weight      `json:"total"`
	Trust   trust             `json:"trust"`
}

// trust is profile.Completeness in JSON. It counts samples, and frames of samples, before anything was focused, ignored or hidden.
type trust struct {
	Stacks  uint64            `json:"stacks"`
	Whole   *uint64           `json:"whole"` // null: files of other programs do not tell
	Frames  uint64            `json:"frames"`
	Named   uint64            `json:"named"`
	Reasons map[string]uint64 `json:"reasons"` // samples by what is missing of their stack or names
}

func newTrust(c profile.Completeness) trust {
	t := trust{Stacks: c.Stacks, Frames: c.Frames, Named: c.Named, Reasons: make(map[string]uint64, len(c.Reasons))}
	if !c.Untold {
		t.Whole = &c.Whole
	}
	for _, r := range c.Reasons {
		t.Reasons[r.Reason] = r.Count
	}
	return t
}

func newFound(p *profile.Profile, c profile.Completeness, total flame.Weight) found {
	return found{
		Start: p.Start, Seconds: p.Duration.Seconds(), Type: p.Type.Name, Unit: p.Type.Unit, Period: p.Period, Lost: lost(p), Total: total, Trust: newTrust(c),
	}
}

// lost are samples by reason.
func lost(p *profile.Profile) map[string]uint64 {
	byReason := map[string]uint64{}
	for _, l := range p.Account.Lost {
		byReason[l.Reason] += l.Count
	}
	return byReason
}

// read gives the profile that a query is about, with what it says of stacks done, and how complete it was before.
func read(ctx context.Context, from History, q query.Query) (*profile.Profile, profile.Completeness, *store.Answer, error) {
	var labels []string
	if q.By != "" {
		labels = append(labels, q.By)
	}
	p, answer, err := from.Read(ctx, q, labels...)
	if err != nil {
		return nil, profile.Completeness{}, nil, err
	}
	return flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By), p.Completeness(), answer, nil
}

func (s *Server) tree(ctx context.Context, q *historyQuery) (any, error) {
	stacks, answer, err := q.history.Stacks(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(q.limit, defaultNodes)
	tree := stacks.Tree(limit)
	kept := prune(tree, limit)
	return struct {
		about
		found
		Root    *flame.Node `json:"root"`
		Nodes   int         `json:"nodes"`   // in the answer, without the root
		Omitted int         `json:"omitted"` // lighter ones that are counted in those above them
	}{newAbout(q, answer), newFound(stacks.Profile, stacks.Completeness, stacks.Total()), tree.Root, kept, tree.Nodes - kept}, nil
}

// maxNameBytes bounds the names of an answer: a process chooses how long those of its functions are, and they stand in each node of a tree.
const maxNameBytes = 16 << 20

// prune leaves as many nodes as the limit, the heaviest, and tells how many; fewer where their names are too long.
func prune(tree *flame.Tree, limit int) (kept int) {
	least, ties := tree.Heaviest(limit)
	room := maxNameBytes
	var cut func(n *flame.Node)
	cut = func(n *flame.Node) {
		i := 0
		for i < len(n.Children) && tree.Weigh(n.Children[i]) >= least { // the heaviest first
			c := n.Children[i]
			if tree.Weigh(c) == least {
				if ties == 0 {
					break
				}
				ties--
			}
			if room -= len(c.Name) + len(c.Module); room < 0 {
				break
			}
			kept++
			cut(c)
			i++
		}
		n.Children = n.Children[:i]
	}
	cut(tree.Root)
	return kept
}

func (s *Server) top(ctx context.Context, q *historyQuery) (any, error) {
	stacks, answer, err := q.history.Stacks(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	table := stacks.Top()
	rows := table.Rows
	return struct {
		about
		found
		Functions int         `json:"functions"` // all, also those that are not in rows
		Rows      []flame.Row `json:"rows"`
	}{newAbout(q, answer), newFound(stacks.Profile, stacks.Completeness, table.Total), len(rows), first(rows, q.limit, rowBytes)}, nil
}

// first are the first elements of a list, a list also where there is none: as many as the limit, and fewer where their names, which bytes counts, are too long.
func first[T any](list []T, limit int, bytes func(*T) int) []T {
	n, room := 0, maxNameBytes
	for ; n < min(len(list), cmp.Or(limit, defaultRows)); n++ {
		if room -= bytes(&list[n]); room < 0 {
			break
		}
	}
	return append([]T{}, list[:n]...)
}

func rowBytes(r *flame.Row) int { return functionBytes(&r.Function) }

func functionBytes(f *flame.Function) int { return len(f.Name) + len(f.Module) }

func neighbourBytes(n *flame.Neighbour) int { return functionBytes(&n.Function) }

// placeBytes counts 32 for a line: more than it takes in memory, and about half of what it takes as JSON.
func placeBytes(p *flame.Place) int {
	return len(p.Path) + len(p.BuildID) + len(p.File) + 32*len(p.Lines)
}

func groupBytes(g *store.Group) int { return len(strings.Join(g.Labels, "")) }

func (s *Server) callers(ctx context.Context, q *historyQuery) (any, error) {
	if q.Function == "" {
		return nil, badRequest("function is missing: give the whole name of the one whose callers and callees are wanted")
	}
	p, c, answer, err := read(ctx, q.history, q.Query)
	if err != nil {
		return nil, err
	}
	of := []flame.Row{}
	stacks := flame.NewStacks(p)
	table := stacks.Top()
	for _, row := range table.Rows {
		if row.Name == q.Function {
			of = append(of, row)
		}
	}
	return struct {
		about
		found
		Of      []flame.Row       `json:"of"` // the functions of that name: one for each file that has one
		Places  []flame.Place     `json:"places"`
		Callers []flame.Neighbour `json:"callers"`
		Callees []flame.Neighbour `json:"callees"`
	}{
		newAbout(q, answer), newFound(p, c, table.Total), first(of, maxRows, rowBytes), first(flame.Places(p, q.Function), q.limit, placeBytes),
		first(stacks.Callers(q.Function), q.limit, neighbourBytes), first(stacks.Callees(q.Function), q.limit, neighbourBytes),
	}, nil
}

// line and seriesAnswer are store.Series in JSON.
type line struct {
	Label   string  `json:"label"`
	Others  bool    `json:"others,omitempty"`
	Samples []int64 `json:"samples"`
	Values  []int64 `json:"values,omitempty"`
}

type seriesAnswer struct {
	about
	Type  string    `json:"type"`
	Unit  string    `json:"unit"`
	Start time.Time `json:"start"`
	Step  float64   `json:"step"` // seconds
	Steps int       `json:"steps"`
	Lines []line    `json:"lines"`
}

func newSeriesAnswer(q *historyQuery, s *store.Series, answer *store.Answer) seriesAnswer {
	out := seriesAnswer{about: newAbout(q, answer), Type: s.Type, Unit: s.Unit, Start: s.From, Step: s.Step.Seconds(), Steps: s.Steps, Lines: []line{}}
	for _, l := range s.Lines {
		out.Lines = append(out.Lines, line{l.Label, l.Others, l.Samples, l.Values})
	}
	return out
}

func (s *Server) series(ctx context.Context, q *historyQuery) (any, error) {
	step := q.step
	if step == 0 {
		step = store.NiceStep(q.To.Sub(q.From), defaultSteps)
	}
	series, answer, err := q.history.Series(ctx, q.Query, step)
	if err != nil {
		return nil, err
	}
	return newSeriesAnswer(q, series, answer), nil
}

func (s *Server) heatmap(ctx context.Context, q *historyQuery) (any, error) {
	step := q.step
	if step == 0 {
		step = max(store.Tick, (q.To.Sub(q.From) / defaultCells).Truncate(store.Tick))
	}
	series, answer, err := q.history.Heatmap(ctx, q.Query, step)
	if err != nil {
		return nil, err
	}
	return newSeriesAnswer(q, series, answer), nil
}

// labelValue is a store.Group of one label in JSON.
type labelValue struct {
	Label  string       `json:"label"`
	Weight flame.Weight `json:"weight"`
}

func (s *Server) labels(ctx context.Context, q *historyQuery) (any, error) {
	if q.By == "" {
		return nil, badRequest("by is missing: give the label whose values are wanted (%s)", strings.Join(query.Labels, ", "))
	}
	groups, answer, err := q.history.Groups(ctx, q.Query, q.By)
	if err != nil {
		return nil, err
	}
	out := struct {
		about
		Label  string       `json:"by"`
		Count  int          `json:"count"` // all, also those that are not in values
		Values []labelValue `json:"values"`
	}{newAbout(q, answer), q.By, len(groups), []labelValue{}}
	for _, g := range first(groups, q.limit, groupBytes) {
		out.Values = append(out.Values, labelValue{g.Labels[0], flame.Weight{Samples: g.Samples, Value: g.Value}})
	}
	return out, nil
}

// process is what processes took that agree in all of it: one, or several that had the same number one after the other.
type process struct {
	PID         int          `json:"pid"` // 0: not known
	Comm        string       `json:"comm"`
	Exe         string       `json:"exe"`
	Cgroup      string       `json:"cgroup"`
	ContainerID string       `json:"container_id"`
	Weight      flame.Weight `json:"weight"`
}

func (s *Server) processes(ctx context.Context, q *historyQuery) (any, error) {
	groups, answer, err := q.history.Groups(ctx, q.Query, "pid", "comm", "exe", "cgroup", "container_id")
	if err != nil {
		return nil, err
	}
	out := struct {
		about
		Count     int       `json:"count"` // all, also those that are not in processes
		Processes []process `json:"processes"`
	}{newAbout(q, answer), len(groups), []process{}}
	for _, g := range first(groups, q.limit, groupBytes) {
		pid, _ := strconv.Atoi(g.Labels[0]) // "": not known
		out.Processes = append(out.Processes, process{
			pid, g.Labels[1], g.Labels[2], g.Labels[3], g.Labels[4], flame.Weight{Samples: g.Samples, Value: g.Value},
		})
	}
	return out, nil
}

// compared is what the answers of comparisons say.
type compared struct {
	about
	Before string `json:"before_query"`
	Count  int    `json:"count"` // of functions, or nodes, also of those that are not in the answer
	// How far the two times can be trusted: by them alone what is not complete, or lost, may differ.
	Trust       trust             `json:"trust"`
	Lost        map[string]uint64 `json:"lost"`
	BeforeTrust trust             `json:"before_trust"`
	BeforeLost  map[string]uint64 `json:"before_lost"`
}

func (s *Server) diff(ctx context.Context, q *historyQuery) (any, error) {
	a, b, about, err := s.sides(ctx, q)
	if err != nil {
		return nil, err
	}
	d, err := flame.Diff(a, b, q.scale)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	about.Count = len(d.Functions)
	d.Functions = first(d.Functions, q.limit, func(c *flame.Change) int { return functionBytes(&c.Function) })
	return struct {
		compared
		*flame.Difference
	}{about, d}, nil
}

func (s *Server) diffTree(ctx context.Context, q *historyQuery) (any, error) {
	a, b, about, err := s.sides(ctx, q)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(q.limit, defaultNodes)
	tree, d, err := flame.DiffTree(a, b, q.scale, limit)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	about.Count = tree.Nodes
	kept := prune(tree, limit)
	return struct {
		compared
		*flame.Difference
		Factor  float64     `json:"factor"` // of weights before, to be compared with those after
		Root    *flame.Node `json:"root"`
		Nodes   int         `json:"nodes"`   // in the answer, without the root
		Omitted int         `json:"omitted"` // lighter ones that are counted in those above them
	}{about, d, d.Factor(), tree.Root, kept, tree.Nodes - kept}, nil
}

// sides reads what is to be compared.
func (s *Server) sides(ctx context.Context, q *historyQuery) (a, b *profile.Profile, c compared, err error) {
	before := q.Query
	before.From, before.To = q.before.From, q.before.To
	if before.To.IsZero() {
		before.To = q.From
	}
	if len(s.files) > 1 && q.before.From.IsZero() && q.before.To.IsZero() {
		before.From, before.To = s.files[0].From, s.files[0].To
	}
	if before.From.IsZero() {
		before.From = before.To.Add(-q.To.Sub(q.From))
	}
	if err := before.Check(); err != nil {
		return nil, nil, c, badRequest("before: %v", err)
	}
	q.scale = cmp.Or(q.scale, flame.ByShare)
	a, completeA, answerA, err := read(ctx, q.history, before)
	if err != nil {
		return nil, nil, c, err
	}
	b, completeB, answerB, err := read(ctx, q.history, q.Query)
	if err != nil {
		return nil, nil, c, err
	}
	for _, p := range []*profile.Profile{a, b} {
		if len(p.Samples) == 0 {
			p.Type = profile.Type{Name: p.Type.Name, Unit: max(a.Type.Unit, b.Type.Unit)} // nothing is of any unit
		}
	}
	return a, b, compared{
		about: newAbout(q, answerA, answerB), Before: before.String(),
		Trust: newTrust(completeB), Lost: lost(b), BeforeTrust: newTrust(completeA), BeforeLost: lost(a),
	}, nil
}
