package web

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/pprof"
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
	Labels(ctx context.Context, q query.Query, label string) ([]store.LabelValue, *store.Answer, error)
}

//go:embed assets/openapi.yaml
var openAPI []byte

const (
	// maxQueries are answered at once: each may take 100 MB for as long as it lasts.
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
	step  time.Duration // 0: to be chosen
	limit int           // 0: to be chosen
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

// isHistory says whether a download is one of the past.
func isHistory(raw string) bool {
	values, err := url.ParseQuery(raw)
	return err == nil && (values.Has("from") || values.Has("to") || values.Has("filter"))
}

// parseHistory reads the part of a URL behind the question mark; allowed are the names of the language that the
// endpoint takes. Without a time the last 15 minutes are meant. Its errors are refusals.
func parseHistory(raw string, now time.Time, allowed []string, more []historyParameter) (*historyQuery, error) {
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
			return nil, badRequest("seconds collects from now on, and from, to and filter ask the history: give one or the other")
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
		q.From = q.To.Add(-defaultRange)
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
)

// routeHistory adds what asks the history.
func (s *Server) routeHistory(mux *http.ServeMux) {
	mux.HandleFunc("/api/v1/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI) // a client that went away is its own business
	})
	mux.HandleFunc("/api/v1/profile", s.pastProfile)
	mux.HandleFunc("/api/v1/tree", s.ask(ofStacks, []historyParameter{limitParameter(maxNodes)}, s.tree))
	mux.HandleFunc("/api/v1/top", s.ask(ofStacks, []historyParameter{limitParameter(maxRows)}, s.top))
	mux.HandleFunc("/api/v1/callers", s.ask(append(slices.Clone(ofStacks), "function"), []historyParameter{limitParameter(maxRows)}, s.callers))
	mux.HandleFunc("/api/v1/series", s.ask(ofSeries, []historyParameter{stepParameter}, s.series))
	mux.HandleFunc("/api/v1/heatmap", s.ask(ofSeries, []historyParameter{stepParameter}, s.heatmap))
	mux.HandleFunc("/api/v1/labels", s.ask(ofSeries, []historyParameter{limitParameter(maxRows)}, s.labels))
	mux.HandleFunc("/api/v1/diff", s.ask(ofStacks, append(diffParameters, limitParameter(maxRows)), s.diff))
}

// ask answers with what make gives, as JSON.
func (s *Server) ask(allowed []string, more []historyParameter, make func(context.Context, *historyQuery) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := parseHistory(r.URL.RawQuery, time.Now(), allowed, more)
		if err == nil {
			err = s.limited(r.Context(), func(ctx context.Context) error {
				answer, err := make(ctx, q)
				if err != nil {
					return err
				}
				body, err := json.Marshal(answer)
				if err != nil {
					return err
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(body) // a client that went away is its own business
				return nil
			})
		}
		if err != nil {
			s.refuseQuery(w, r, err)
		}
	}
}

// errBusy and errNoHistory are why a query is not begun.
var (
	errBusy      = fmt.Errorf("%d queries are being answered, as many as this agent answers at once: try again later", maxQueries)
	errNoHistory = errors.New("this agent keeps no history: start it without --no-history, and with a --data-dir that it can write to")
)

// limited runs a query when it is its turn, for a bounded time. It sends the answer too: one that waits for a slow client takes as much memory as one
// that is being made, for writeTimeout at most.
func (s *Server) limited(ctx context.Context, run func(context.Context) error) error {
	if s.options.History == nil {
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
	case errors.Is(err, store.ErrStep) || errors.Is(err, store.ErrTooMany):
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

// pastProfile sends a profile of the history as pprof.
func (s *Server) pastProfile(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Go-Pprof", "1")
	q, err := parseHistory(r.URL.RawQuery, time.Now(), ofStacks, nil)
	if err != nil {
		s.refuse(w, err)
		return
	}
	if r.Method == http.MethodHead {
		setDownload(w.Header())
		return
	}
	err = s.limited(r.Context(), func(ctx context.Context) error {
		p, answer, err := s.options.History.Read(ctx, q.Query, query.Labels...)
		if err != nil {
			return err
		}
		for _, warning := range answer.Warnings {
			s.options.Log.Warn("a part of the history is left out of a download", "err", warning)
		}
		var body bytes.Buffer
		if err := pprof.Write(&body, flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By), terminal.Warnings(answer)...); err != nil {
			return err
		}
		// A client learns by this that the profile is not all that was asked for; who reads it, by its comments.
		w.Header().Set("X-Pilotlight-Warnings", strconv.Itoa(len(answer.Warnings)))
		sendDownload(w, &body)
		return nil
	})
	if err != nil {
		s.refuseQuery(w, r, err)
	}
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
}

func newFound(p *profile.Profile, total flame.Weight) found {
	f := found{Start: p.Start, Seconds: p.Duration.Seconds(), Type: p.Type.Name, Unit: p.Type.Unit, Period: p.Period, Lost: map[string]uint64{}, Total: total}
	for _, l := range p.Account.Lost {
		f.Lost[l.Reason] += l.Count
	}
	return f
}

// read gives the profile that a query is about, with what it says of stacks done.
func (s *Server) read(ctx context.Context, q query.Query) (*profile.Profile, *store.Answer, error) {
	var labels []string
	if q.By != "" {
		labels = append(labels, q.By)
	}
	p, answer, err := s.options.History.Read(ctx, q, labels...)
	if err != nil {
		return nil, nil, err
	}
	return flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By), answer, nil
}

func (s *Server) tree(ctx context.Context, q *historyQuery) (any, error) {
	stacks, answer, err := s.options.History.Stacks(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	limit := q.limit
	if limit == 0 {
		limit = defaultNodes
	}
	tree := stacks.Tree(limit)
	kept := prune(tree, limit)
	return struct {
		about
		found
		Root    *flame.Node `json:"root"`
		Nodes   int         `json:"nodes"`   // in the answer, without the root
		Omitted int         `json:"omitted"` // lighter ones that are counted in those above them
	}{newAbout(q, answer), newFound(stacks.Profile, stacks.Total()), tree.Root, kept, tree.Nodes - kept}, nil
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
		for i < len(n.Children) && n.Children[i].Total.Value >= least { // the heaviest first
			c := n.Children[i]
			if c.Total.Value == least {
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
	stacks, answer, err := s.options.History.Stacks(ctx, q.Query)
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
	}{newAbout(q, answer), newFound(stacks.Profile, table.Total), len(rows), first(rows, q.limit, rowBytes)}, nil
}

// first are the first elements of a list, a list also where there is none: as many as the limit, and fewer where their names, which bytes counts, are too long.
func first[T any](list []T, limit int, bytes func(*T) int) []T {
	if limit == 0 {
		limit = defaultRows
	}
	n, room := 0, maxNameBytes
	for ; n < min(len(list), limit); n++ {
		if room -= bytes(&list[n]); room < 0 {
			break
		}
	}
	return append([]T{}, list[:n]...)
}

func rowBytes(r *flame.Row) int { return functionBytes(&r.Function) }

func functionBytes(f *flame.Function) int { return len(f.Name) + len(f.Module) }

func neighbourBytes(n *flame.Neighbour) int { return functionBytes(&n.Function) }

func (s *Server) callers(ctx context.Context, q *historyQuery) (any, error) {
	if q.Function == "" {
		return nil, badRequest("function is missing: give the whole name of the one whose callers and callees are wanted")
	}
	p, answer, err := s.read(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	of := []flame.Row{}
	table := flame.Top(p)
	for _, row := range table.Rows {
		if row.Name == q.Function {
			of = append(of, row)
		}
	}
	return struct {
		about
		found
		Of      []flame.Row       `json:"of"` // the functions of that name: one for each file that has one
		Callers []flame.Neighbour `json:"callers"`
		Callees []flame.Neighbour `json:"callees"`
	}{
		newAbout(q, answer), newFound(p, table.Total), first(of, maxRows, rowBytes),
		first(flame.Callers(p, q.Function), q.limit, neighbourBytes), first(flame.Callees(p, q.Function), q.limit, neighbourBytes),
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
	series, answer, err := s.options.History.Series(ctx, q.Query, step)
	if err != nil {
		return nil, err
	}
	return newSeriesAnswer(q, series, answer), nil
}

func (s *Server) heatmap(ctx context.Context, q *historyQuery) (any, error) {
	const cell = 10 * time.Millisecond
	step := q.step
	if step == 0 {
		step = max(cell, (q.To.Sub(q.From) / defaultCells).Truncate(cell))
	}
	series, answer, err := s.options.History.Heatmap(ctx, q.Query, step)
	if err != nil {
		return nil, err
	}
	return newSeriesAnswer(q, series, answer), nil
}

// labelValue is store.LabelValue in JSON.
type labelValue struct {
	Label  string       `json:"label"`
	Weight flame.Weight `json:"weight"`
}

func (s *Server) labels(ctx context.Context, q *historyQuery) (any, error) {
	if q.By == "" {
		return nil, badRequest("by is missing: give the label whose values are wanted (%s)", strings.Join(query.Labels, ", "))
	}
	values, answer, err := s.options.History.Labels(ctx, q.Query, q.By)
	if err != nil {
		return nil, err
	}
	out := struct {
		about
		Label  string       `json:"by"`
		Count  int          `json:"count"` // all, also those that are not in values
		Values []labelValue `json:"values"`
	}{newAbout(q, answer), q.By, len(values), []labelValue{}}
	for _, v := range first(values, q.limit, func(v *store.LabelValue) int { return len(v.Label) }) {
		out.Values = append(out.Values, labelValue{v.Label, flame.Weight{Samples: v.Samples, Value: v.Value}})
	}
	return out, nil
}

func (s *Server) diff(ctx context.Context, q *historyQuery) (any, error) {
	before := q.Query
	before.From, before.To = q.before.From, q.before.To
	if before.To.IsZero() {
		before.To = q.From
	}
	if before.From.IsZero() {
		before.From = before.To.Add(-q.To.Sub(q.From))
	}
	if err := before.Check(); err != nil {
		return nil, badRequest("before: %v", err)
	}
	if q.scale == "" {
		q.scale = flame.ByShare
	}
	a, answerA, err := s.read(ctx, before)
	if err != nil {
		return nil, err
	}
	b, answerB, err := s.read(ctx, q.Query)
	if err != nil {
		return nil, err
	}
	for _, p := range []*profile.Profile{a, b} {
		if len(p.Samples) == 0 {
			p.Type = profile.Type{Name: p.Type.Name, Unit: max(a.Type.Unit, b.Type.Unit)} // nothing is of any unit
		}
	}
	d, err := flame.Diff(a, b, q.scale)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	count := len(d.Functions)
	d.Functions = first(d.Functions, q.limit, func(c *flame.Change) int { return functionBytes(&c.Function) })
	return struct {
		about
		Before string `json:"before_query"`
		Count  int    `json:"count"` // of functions, also those that are not in the answer
		*flame.Difference
	}{newAbout(q, answerA, answerB), before.String(), count, d}, nil
}
