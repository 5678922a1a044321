package web

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Nothing in the file but the two pieces that were built with it can run, and it names nobody to be asked. The stage browser opens it.
func TestWriteHTML(t *testing.T) {
	hostile := "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
	const turned = "evil\u202egnp.exe"
	p := profileOf(stack(1, "app", turned, hostile, "main"), stack(1, "</title><b>", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "main"))
	p.Start = time.Unix(1e9, 0)
	var out bytes.Buffer
	if err := WriteHTML(&out, p); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{
		"cpu profile, 2001-09-09 01:46:40 UTC", "2 samples in 10.0 s", "&lt;/script&gt;&lt;script&gt;alert(1)", `\u003c/script\u003e`, "geo::area&lt;geo::Circle, 7&gt;",
		"script-src &#39;sha256-",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in it", want)
		}
	}
	if _, table, _ := strings.Cut(page, "<table>"); strings.Contains(table[:strings.Index(table, "</table>")], "\u202e") || !strings.Contains(table, "evil?gnp.exe") {
		t.Errorf("the table turns text around: %.3000s", table)
	}
	if n := strings.Count(page, "<script"); n != 2 || strings.Count(page, "</script") != 2 || strings.Contains(page, "<img") || strings.Contains(page, "<b>") {
		t.Errorf("%d scripts, or markup of a name: %.3000s", n, page)
	}
	if loads := regexp.MustCompile(`(?i)(src|href)="|url\((?:")?h|@import`).FindAllString(page, -1); len(loads) > 0 {
		t.Errorf("it loads something: %q", loads)
	}
}
