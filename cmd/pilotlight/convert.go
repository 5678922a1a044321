package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	pb "github.com/google/pprof/profile"
	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

type convertFlags struct {
	format     string
	sampleType string
}

func newConvertCommand() *cobra.Command {
	var f convertFlags
	cmd := &cobra.Command{
		Use:   "convert [flags] IN OUT",
		Short: "Convert a profile to another format",
		Long: "Convert reads IN (pprof of any tool, OTLP as protobuf, or folded text, gzipped or not; - is standard input) and writes OUT\n" +
			"(- is standard output) in the format that its name ends in, or that is given:\n\n" +
			"  pprof       .pb.gz .pb .pprof .prof; always gzipped\n" +
			"  otlp        .otlp.pb .otlp; a ProfilesData message of OpenTelemetry\n" +
			"  folded      .folded .collapsed .txt\n" +
			"  speedscope  .speedscope.json\n" +
			"  html        .html; one file that opens in a browser, offline\n\n" +
			"A name that ends in .gz besides is written gzipped. Folded text has one number of each stack: how many samples it has, or the values of --type.\n" +
			"Between pprof and OTLP nothing is lost that both can say; docs/formats.md lists what\n" +
			"each conversion loses. Profiles of differing periods are not added up: such a file can be written as OTLP alone, or by --type.",
		Example: "  pilotlight convert profile.pb.gz profile.otlp.pb\n" +
			"  pilotlight convert profile.otlp.pb profile.pb.gz\n" +
			"  pilotlight convert --type inuse_space heap.pb.gz heap.html\n" +
			"  perf script | stackcollapse-perf.pl | pilotlight convert --format otlp - - >profile.otlp.pb",
		RunE: func(_ *cobra.Command, args []string) error { return convert(&f, args) },
	}
	cmd.Flags().StringVar(&f.format, "format", "", "write this `FORMAT`: pprof, otlp, folded, speedscope or html (default: that which the name of OUT ends in)")
	cmd.Flags().StringVar(&f.sampleType, "type", "", "leave values of this `TYPE` alone, such as cpu or inuse_space (default: all for pprof and OTLP, that of the file for others)")
	return cmd
}

// endings of file names, without .gz, of the formats; the longest that fits counts.
var endings = map[string]string{
	".pb": "pprof", ".pprof": "pprof", ".prof": "pprof", ".otlp.pb": "otlp", ".otlp": "otlp", ".folded": "folded", ".collapsed": "folded", ".txt": "folded",
	".speedscope.json": "speedscope", ".html": "html",
}

// formatOf is what the name of a file says; "" where it says nothing.
func formatOf(path string) string {
	name := strings.TrimSuffix(strings.ToLower(filepath.Base(path)), zippedEnding)
	best := ""
	for ending := range endings {
		if strings.HasSuffix(name, ending) && len(ending) > len(best) {
			best = ending
		}
	}
	return endings[best]
}

func convert(f *convertFlags, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("convert makes one file of another, got %d: give IN and OUT", len(args))
	}
	in, out := args[0], args[1]
	format := f.format
	if format == "" {
		format = formatOf(out)
	}
	switch {
	case out == "":
		return errors.New("OUT: want a file name, or - for standard output")
	case format == "" && out == "-":
		return errors.New("standard output has no name that tells the format: give it by --format")
	case format == "":
		return fmt.Errorf("the name %s tells no format: give one of %s by --format", out, strings.Join(formatNames(), ", "))
	case formats[format] == nil:
		return fmt.Errorf("format %q: want one of %s", format, strings.Join(formatNames(), ", "))
	}
	var write func(io.Writer) error
	if err := withInput(in, func(r io.Reader) error {
		d, err := readDocument(r)
		if err == nil {
			write, err = d.as(format, f.sampleType)
		}
		return err
	}); err != nil {
		return failure{err}
	}
	file, err := openOutput(out)
	if err != nil {
		return failure{err}
	}
	defer file.discard()
	defer file.discardOnSignal()()
	plain := func(w io.Writer, _ *profile.Profile) error { return write(w) }
	if err := file.write(nil, zippedByName(out, format, plain)); err != nil {
		return failure{err}
	}
	return nil
}

func formatNames() []string { return slices.Sorted(maps.Keys(formats)) }

// as gives how the document is written in a format. What can be wrong with its content is found before anything is written.
func (d *document) as(format, sampleType string) (func(io.Writer) error, error) {
	if d.folded != nil && sampleType != "" && sampleType != d.folded.Type.Name {
		return nil, fmt.Errorf("it has no values of type %q: folded text counts %s", sampleType, d.folded.Type.Name)
	}
	switch format {
	case "pprof":
		p, err := d.asPprof(sampleType)
		if err != nil {
			return nil, err
		}
		return p.Write, p.CheckValid()
	case "otlp":
		if d.folded == nil {
			data, err := d.asOTLP(sampleType)
			if err != nil {
				return nil, err
			}
			return data.Write, nil
		}
	}
	p, err := d.profile(sampleType)
	if err != nil {
		return nil, err
	}
	if format == "folded" && (sampleType != "" || uncounted(p)) {
		for i := range p.Samples {
			p.Samples[i].Count = p.Samples[i].Value // the one number of a stack that folded text has
		}
	}
	err = flame.Check(p)
	return func(w io.Writer) error { return formats[format](w, p) }, err
}

// uncounted says that nothing tells how many samples a profile has: each of a file counts as one then.
func uncounted(p *profile.Profile) bool {
	return p.Period == 0 && p.Type.Unit != profile.TypeSamples.Unit && !slices.ContainsFunc(p.Samples, func(s profile.Sample) bool { return s.Count != 1 })
}

func (d *document) asPprof(sampleType string) (*pb.Profile, error) {
	switch {
	case d.folded != nil:
		return pprof.Convert(d.folded), nil
	case d.otlp != nil:
		return d.otlp.Pprof(sampleType)
	case sampleType != "":
		return d.pprof, pprof.Select(d.pprof, sampleType)
	}
	return d.pprof, nil
}

func (d *document) asOTLP(sampleType string) (*otlp.Data, error) {
	if d.otlp == nil {
		p, err := d.asPprof(sampleType)
		if err != nil {
			return nil, err
		}
		return otlp.FromPprof(p)
	}
	if sampleType != "" {
		return d.otlp.Select(sampleType)
	}
	return d.otlp, nil
}
