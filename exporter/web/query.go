package web

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/collect"
)

const (
	defaultDuration = 30 * time.Second
	maxDuration     = 10 * time.Minute
	maxPIDs         = 1000
	maxPattern      = 1000 // bytes of a regular expression
	// maxPID is the greatest that a 64-bit kernel gives (PID_MAX_LIMIT).
	maxPID = 1 << 22
)

// refusal is an answer to a request that cannot be served: what was wrong with which parameter, and what is accepted.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func badRequest(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// liveQuery is what /debug/pprof/profile was asked for, without a time in the past:
//
//	seconds=5&pid=1200,1201&children=true&comm=^nginx$
//
// The names are those of the command line's flags. A parameter that is unknown, empty or given twice is
// refused: a profile of something else than was asked for is worse than none.
type liveQuery struct {
	duration time.Duration
	filter   collect.Filter
	// cgroup is what was given; filter.Cgroup is found by looking at the host.
	cgroup string
	// conditions are looked at when the profile is there.
	conditions query.Filter
}

// parameters are the accepted ones, in the order in which they are documented.
var parameters = []struct {
	name, help string
	parse      func(q *liveQuery, value string) error
}{
	{"seconds", "how long to collect: a number greater than 0, at most 600; default 30", parseSeconds},
	{"pid", "processes, such as 1200 or 1200,1201", parsePIDs},
	{"children", "true: the descendants of pid too", parseChildren},
	{"comm", "processes whose name matches a regular expression, such as ^nginx$", parseComm},
	{"cgroup", "processes in a cgroup or below it, such as /sys/fs/cgroup/system.slice or /system.slice", parseCgroup},
	{"container", "processes of a container: its id, or at least the first 8 digits", parseContainer},
	{"filter", `conditions on labels, such as trace_id="4bf92f3577b34da6a3ce929d0e0e4736"`, parseConditions},
}

// parseQuery reads the part of a URL behind the question mark. It looks at nothing but the text; its errors are refusals.
func parseQuery(raw string) (liveQuery, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return liveQuery{}, badRequest("the query %s is malformed: give name=value pairs separated by &", query.Quote(raw))
	}
	q := liveQuery{duration: defaultDuration}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := q.set(name, values[name]); err != nil {
			return liveQuery{}, err
		}
	}
	if q.filter.Children && len(q.filter.PIDs) == 0 {
		return liveQuery{}, badRequest("children=true needs pid=PID: the processes whose descendants are wanted")
	}
	return q, nil
}

func (q *liveQuery) set(name string, values []string) error {
	for _, p := range parameters {
		switch {
		case p.name != name:
			continue
		case len(values) != 1:
			return badRequest("%s is given %d times: give it once (%s)", name, len(values), p.help)
		case values[0] == "":
			return badRequest("%s is empty: leave it out or give a value (%s)", name, p.help)
		}
		return p.parse(q, values[0])
	}
	var names []string
	for _, p := range parameters {
		names = append(names, p.name)
	}
	return badRequest("there is no parameter %s: accepted are %s", query.Quote(name), strings.Join(names, ", "))
}

// parseSeconds takes plain decimals: no exponents, no "inf".
func parseSeconds(q *liveQuery, value string) error {
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || strings.Trim(value, "0123456789.") != "" {
		return badRequest("seconds=%s is not a number: give seconds, such as 5 or 0.5, greater than 0 and at most %d",
			query.Quote(value), int(maxDuration.Seconds()))
	}
	// Compared as numbers: far beyond the bound a Duration overflows.
	if seconds > maxDuration.Seconds() || time.Duration(seconds*float64(time.Second)) <= 0 {
		return badRequest("seconds=%s is out of range: give seconds greater than 0 and at most %d", query.Quote(value), int(maxDuration.Seconds()))
	}
	q.duration = time.Duration(seconds * float64(time.Second))
	return nil
}

func parsePIDs(q *liveQuery, value string) error {
	for text := range strings.SplitSeq(value, ",") {
		pid, err := strconv.ParseUint(text, 10, 32)
		if err != nil || pid == 0 || pid > maxPID {
			return badRequest("pid=%s: %s is not a process id: give numbers from 1 to %d, separated by commas", query.Quote(value), query.Quote(text), maxPID)
		}
		if len(q.filter.PIDs) == maxPIDs {
			return badRequest("pid names more than %d processes: give fewer, or their cgroup", maxPIDs)
		}
		q.filter.PIDs = append(q.filter.PIDs, int(pid))
	}
	return nil
}

func parseConditions(q *liveQuery, value string) (err error) {
	if q.conditions, err = query.ParseFilter(value); err != nil {
		return badRequest("filter: %v", err)
	}
	return nil
}

func parseChildren(q *liveQuery, value string) error {
	switch value {
	case "true", "1":
		q.filter.Children = true
	case "false", "0":
	default:
		return badRequest("children=%s is neither true nor false: give children=true to take the descendants of pid too", query.Quote(value))
	}
	return nil
}

func parseComm(q *liveQuery, value string) (err error) {
	if len(value) > maxPattern {
		return badRequest("comm has %d bytes: give a regular expression of at most %d", len(value), maxPattern)
	}
	if q.filter.Comm, err = regexp.Compile(value); err != nil {
		return badRequest("comm=%s is not a regular expression that can be used (%s): give one such as ^nginx$ (RE2 syntax)",
			query.Quote(value), query.Quote(err.Error()))
	}
	return nil
}

func parseCgroup(q *liveQuery, value string) error {
	if strings.ContainsRune(value, 0) {
		return badRequest("cgroup=%s contains a zero byte: give a directory such as /sys/fs/cgroup/system.slice", query.Quote(value))
	}
	q.cgroup = value
	return nil
}

func parseContainer(q *liveQuery, value string) error {
	id := strings.ToLower(value)
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return badRequest("container=%s is not a container id: give 8 to 64 hexadecimal digits", query.Quote(value))
	}
	q.filter.ContainerID = id
	return nil
}
