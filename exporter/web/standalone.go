package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/doctor"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Bounds of an HTML file: what is lighter is counted in what is above it, and the file says how much that is.
const (
	standaloneNodes = 50_000
	standaloneRows  = 50
)

// WriteHTML writes one file with a profile and all that shows it: it opens from the disk or a mail, and asks nobody for anything. Names
// are text in it, and data in a block that no browser runs; its policy lets the one script run that was built with it.
func WriteHTML(w io.Writer, p *profile.Profile) error { return writeHTML(w, p, p.Completeness()) }

// writeHTML takes how complete the profile was before anything was left out of its stacks, and what more is to be said of it.
func writeHTML(w io.Writer, p *profile.Profile, c profile.Completeness, comments ...string) error {
	stacks := flame.NewStacks(p)
	tree, top := stacks.Tree(standaloneNodes), stacks.Top()
	nodes := tree.Nodes
	kept := prune(tree, standaloneNodes)
	data, err := json.Marshal(struct { // it writes < as \u003c
		Unit string      `json:"unit"`
		Root *flame.Node `json:"root"`
	}{p.Type.Unit, tree.Root})
	if err != nil {
		return fmt.Errorf("write HTML profile: %w", err)
	}
	script, err := assets.ReadFile("assets/standalone/standalone.js")
	if err != nil {
		return fmt.Errorf("write HTML profile: %w", err)
	}
	style, err := assets.ReadFile("assets/standalone/standalone.css")
	if err != nil {
		return fmt.Errorf("write HTML profile: %w", err)
	}
	var out bytes.Buffer
	err = standalone.Execute(&out, struct {
		Title, Policy      string
		Facts              []string
		Style              template.CSS
		Script, Data       template.JS
		Total              flame.Weight
		Rows               []flame.Row
		Functions, LeftOut int
	}{
		Title: title(p), Facts: append(facts(p, top.Total, &c), comments...),
		Policy: "default-src 'none'; script-src 'sha256-" + hash(script) + "'; style-src 'sha256-" + hash(style) + "'; img-src data: blob:; base-uri 'none'; form-action 'none'",
		Style:  template.CSS(style), Script: template.JS(script), Data: template.JS(data),
		Total: top.Total, Rows: top.Rows[:min(len(top.Rows), standaloneRows)], Functions: len(top.Rows), LeftOut: nodes - kept,
	})
	if err == nil {
		_, err = out.WriteTo(w)
	}
	if err != nil {
		return fmt.Errorf("write HTML profile: %w", err)
	}
	return nil
}

func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func title(p *profile.Profile) string {
	if p.Start.IsZero() {
		return p.Type.Name + " profile"
	}
	return p.Type.Name + " profile, " + p.Start.UTC().Format("2006-01-02 15:04:05 UTC")
}

// facts are what the heading says of the profile.
func facts(p *profile.Profile, total flame.Weight, c *profile.Completeness) []string {
	list := []string{fmt.Sprintf("%d samples", total.Samples)}
	if p.Duration > 0 {
		list[0] += fmt.Sprintf(" in %.1f s", p.Duration.Seconds())
	}
	if c.Stacks > 0 && c.Frames > 0 {
		if !c.Untold {
			list = append(list, fmt.Sprintf("%.1f %% whole stacks", percent(int64(c.Whole), int64(c.Stacks))))
		}
		list = append(list, fmt.Sprintf("%.1f %% named frames", percent(int64(c.Named), int64(c.Frames))))
	}
	var lost []string
	for _, l := range p.Account.Lost {
		if l.Count > 0 {
			lost = append(lost, fmt.Sprintf("%d %s", l.Count, strings.ReplaceAll(l.Reason, "_", " ")))
		}
	}
	if len(lost) > 0 {
		list = append(list, "lost: "+strings.Join(lost, ", "))
	}
	return list
}

var standalone = template.Must(template.New("standalone").Funcs(template.FuncMap{
	"printable": doctor.Printable,
	"share":     func(w, whole flame.Weight) string { return fmt.Sprintf("%.1f %%", percent(w.Value, whole.Value)) },
}).Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{.Policy}}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{{printable .Title}} · Pilotlight</title>
<style>{{.Style}}</style>
</head>
<body>
<header><h1>{{printable .Title}}</h1>{{range .Facts}}<p>{{printable .}}</p>{{end}}</header>
<main>
<div class="bar" data-script hidden>
  <input type="search" id="search" placeholder="Search functions ( / )" aria-label="Search functions, by a part of the name or a /regular expression/">
  <span id="found" class="dim" role="status"></span>
  <span class="spring"></span>
  <label>Colour <select id="color"><option value="kind">by kind</option><option value="module">by module</option></select></label>
  <button type="button" id="invert" aria-pressed="false">Invert</button>
  <button type="button" id="collapse" aria-pressed="false">Collapse recursion</button>
  <button type="button" id="png">PNG</button>
  <button type="button" id="svg">SVG</button>
</div>
<div id="graph" data-script hidden></div>
{{if .LeftOut}}<p class="dim">{{.LeftOut}} lighter frames are counted in those above them.</p>{{end}}
<noscript><p>The flame graph needs JavaScript. The table does not.</p></noscript>
<h2>Hottest functions{{if lt (len .Rows) .Functions}} ({{len .Rows}} of {{.Functions}}){{end}}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Hottest functions">
<table>
<thead><tr><th scope="col">Self</th><th scope="col">Total</th><th scope="col">Samples</th><th scope="col">Function</th><th scope="col">File</th></tr></thead>
<tbody>
{{range .Rows}}<tr><td>{{share .Self $.Total}}</td><td>{{share .Total $.Total}}</td><td>{{.Total.Samples}}</td><td><code>{{printable .Name}}</code></td><td>{{printable .Module}}</td></tr>
{{end}}</tbody>
</table>
</div>
<details data-script hidden><summary>Keys</summary><dl id="keys"></dl></details>
</main>
<script type="application/json" id="profile">{{.Data}}</script>
<script>{{.Script}}</script>
</body>
</html>
`))
