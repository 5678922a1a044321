package query

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

var now = time.Date(2026, 11, 24, 17, 5, 10, 0, time.UTC)

func TestParse(t *testing.T) {
	const noon = "from=2026-11-24T12:00:00Z"
	for text, want := range map[string]string{
		"":                                 "",
		" \t":                              "",
		"from=1764000000":                  "from=2025-11-24T16:00:00Z",
		noon:                               noon,
		noon + " to=1795525200.5":          noon + " to=2026-11-24T13:00:00.5Z",
		"from=2026-11-24T13:00:00.5+01:00": "from=2026-11-24T12:00:00.5Z",
		"type=cycles":                      "type=cycles",
		"by=comm":                          "by=comm",
		"focus=^malloc$ ignore=a.*b":       "focus=^malloc$ ignore=a.*b",
		`focus="^operator new$"`:           `focus="^operator new$"`,
		"hide=`\\d+ \"`":                   `hide="\\d+ \""`,
		"function=std::vector<int>":        "function=std::vector<int>",
		`function="a\xffb\n"`:              `function="a\xffb\n"`,
		`filter=comm=redis`:                `filter=comm="redis"`,
		`filter=pid=12,comm!="" by=exe`:    `filter=pid="12",comm!="" by=exe`,
		`filter=comm=~"redis.*",container_id!=""`:   `filter=comm=~"redis.*",container_id!=""`,
		`filter=comm = "a b" , thread !~ x  by=pid`: `filter=comm="a b",thread!~"x" by=pid`,
		`filter=comm="a,b",exe="/usr/bin/\"x\\"`:    `filter=comm="a,b",exe="/usr/bin/\"x\\"`,
		"filter=comm=`a\\`,exe=/usr/bin/x=y":        `filter=comm="a\\",exe="/usr/bin/x=y"`,
		"filter=comm=\"\xff\x01\u202e\"":            `filter=comm="\xff\x01\u202e"`,
		`filter=comm="\xff\x01\u202e\101"`:          `filter=comm="\xff\x01\u202eA"`,
		"focus=\"\u00e4\"":                          "focus=\"\u00e4\"",
	} {
		q, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := q.String(); got != want {
			t.Errorf("%s: %s, not %s", text, got, want)
		}
	}
}

// Each error says where, what was expected or is known, and what was found.
func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"form=-15m":                          `at 1: there is no parameter "form": known are from, to, type, filter, by, focus, ignore, hide, function`,
		"from=-15m from=-5m":                 "at 11: from is given twice",
		"from":                               "at 5: expected a name and = such as from=-15m, found the end",
		"from=":                              "at 6: expected a value",
		"from=yesterday":                     `at 1: from: "yesterday" is no time: give RFC 3339`,
		"by=comm\nto=-2x":                    "at 9: to: \"-2x\" is no time: give a span such as -15m",
		"by=name":                            `at 1: by: there is no label "name": known are pid, tid, comm, thread, exe, cgroup, container_id, service, pod_uid, unit, trace_id, span_id`,
		"by=comm,":                           `there is no label "comm,"`,
		"focus=(":                            `at 1: focus: "(" is not a regular expression (RE2): missing closing )`,
		`focus="a\qb"`:                       `at 9: \ begins an escape`,
		`focus="ab`:                          `at 10: expected " at the end of the value, found the end`,
		"focus=`ab":                          "at 10: expected ` at the end of the value, found the end",
		`focus=a"b"`:                         "at 8: a quote in the middle of a value",
		`focus=""`:                           "focus is empty",
		"focus=" + strings.Repeat("a", 1001): "1001 bytes: at most 1000",
		"from=2 to=1":                        "from 1970-01-01T00:00:02Z is not before to 1970-01-01T00:00:01Z",
		"filter=":                            "at 8: expected a label (pid, tid, comm, thread, exe, cgroup, container_id, service, pod_uid, unit, trace_id, span_id), found the end",
		"filter=comm":                        "at 12: expected =, !=, =~ or !~, found the end",
		"filter=comm>1":                      `at 12: expected =, !=, =~ or !~, found ">1"`,
		"filter=name=a":                      `at 8: there is no label "name": known are`,
		"filter=comm=a,":                     "at 15: expected a label",
		"filter=comm=a,,exe=b":               `at 15: expected a label`,
		"filter=comm=":                       `at 13: expected a value, "" for an empty one, found the end`,
		`filter=comm=~"("`:                   `at 14: "(" is not a regular expression`,
		`filter=pid=abc`:                     `at 12: pid="abc": pid is a number`,
		`filter=pid=007`:                     `pid is a number`,
		"\xff=a":                             `at 1: expected a name`,
		"filter=" + strings.Repeat("pid=1,", 65) + "pid=1": "more than 64 conditions",
		"from=" + strings.Repeat("1", 5<<20):               "at most 4194304 are taken",
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, not %s", text, err, want)
		}
	}
	_, err := ParseFilter("comm=a exe=b")
	var at *Error
	if !errors.As(err, &at) || at.Offset != 7 || !strings.Contains(err.Error(), `expected a comma and a further condition, or the end, found "exe=b"`) {
		t.Errorf("filter: %v", err)
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Time{
		"now":                       now,
		"-15m":                      now.Add(-15 * time.Minute),
		"-1h30m":                    now.Add(-90 * time.Minute),
		"-7d":                       now.AddDate(0, 0, -7),
		"-1d12h":                    now.Add(-36 * time.Hour),
		"-0s":                       now,
		"0":                         time.Unix(0, 0),
		"1795539910":                now,
		"1795539910.25":             now.Add(250 * time.Millisecond),
		"1795539910.13":             now.Add(130 * time.Millisecond), // no binary fraction
		"2026-11-24T17:05:10Z":      now,
		"2026-11-24T18:05:10+01:00": now,
	} {
		got, err := ParseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, not %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "15m", "--1m", "-+1m", "-1", "-d", "-1d-1h", "-70000d", "-1000000h", "1e9", "inf", "99999999999", ".", "1.2.3",
		"2026-11-24", "2026-11-24T17:05:10", "1969-01-01T00:00:00Z", "2300-01-01T00:00:00Z", "-21000d", "Now", "now "} {
		if got, err := ParseTime(text, now); err == nil {
			t.Errorf("%q: %v and no error", text, got)
		}
	}
}

func TestMatches(t *testing.T) {
	labels := &profile.Labels{PID: 1234, Comm: "redis-server", Thread: "bio\n1", Exe: "/usr/bin/\xff", Cgroup: "/system.slice/redis.service"}
	for text, want := range map[string]bool{
		"":                                 true,
		"pid=1234":                         true,
		"pid=123":                          false,
		`pid=~"12.."`:                      true,
		`tid=""`:                           true,
		`tid!=""`:                          false,
		"comm=redis-server":                true,
		"comm=redis":                       false,
		"comm=~redis":                      false, // the whole value
		"comm=~redis.*":                    true,
		"comm!~redis.*":                    false,
		"comm=~a|redis-server":             true,
		"comm=~(?i)REDIS-.*":               true,
		`comm=~"\\Qredis-server"`:          true, // a quotation that does not end
		`thread=~"bio.1"`:                  true, // . is any character: names may have line ends
		`thread=~"(?m)bio$"`:               false,
		`thread="bio\n1"`:                  true,
		`exe="/usr/bin/\xff"`:              true,
		`exe="/usr/bin/\ufffd"`:            false,
		`container_id=""`:                  true,
		`container_id!="",comm=~"redis.*"`: false,
		`container_id="",comm=~"redis.*"`:  true,
		"cgroup=~/system.slice/.*":         true,
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Matches(labels); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// Whatever is given, the answer is one short line, or a query whose String means the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "from=-15m to=now type=cpu filter=comm=~\"redis.*\",container_id!=\"\" by=comm focus=^malloc$",
		"from=2026-11-24T12:00:00Z hide=`a b` ignore=\"\\xff\" function=\"\\n\"", "filter=pid=1,tid!=2 by=exe", "filter=comm=~\"\\\\Qa\"",
		"from=1.5 to=99999999999", "filter=comm=\"\xff\"", "focus=(?s)a{1000}", "a=b", "from==", "=", "\"", "filter=exe=a=b", "filter=comm=a ,pid=1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text)
		if err != nil {
			if m := err.Error(); m == "" || len(m) > 1000 || strings.ContainsFunc(m, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
				t.Fatalf("%q: %q", text, m)
			}
			return
		}
		again, err := Parse(q.String())
		if err != nil || fmt.Sprintf("%+q", again) != fmt.Sprintf("%+q", q) || again.String() != q.String() {
			t.Fatalf("%q: read as %s, and that as %s, %v", text, q.String(), again.String(), err)
		}
	})
}

// Spans can be asked for where profiles are in memory, and the history says that it does not keep them.
func TestSpans(t *testing.T) {
	l := &profile.Labels{Comm: "a", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7"}
	for text, want := range map[string]bool{
		`filter=trace_id="4bf92f3577b34da6a3ce929d0e0e4736",span_id=~"00.*"`: true,
		`filter=trace_id=4bf9`: false,
		`filter=span_id!=""`:   true,
		`filter=span_id=""`:    false,
	} {
		q, err := Parse(text)
		if err != nil || q.Filter.Matches(l) != want {
			t.Errorf("%s: %v, not %v", text, err, want)
		}
		if err := q.Kept(); !errors.Is(err, ErrNotKept) {
			t.Errorf("%s: the history answers: %v", text, err)
		}
	}
	if q := (Query{By: "trace_id"}); !errors.Is(q.Kept(), ErrNotKept) {
		t.Errorf("by trace_id: the history answers")
	}
	if q, err := Parse("filter=comm=a by=exe"); err != nil || q.Kept() != nil {
		t.Errorf("%v, %v", err, q.Kept())
	}
}
