package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/exporter/web"
)

type webFlags struct {
	listen     string
	sampleType string
}

func newWebCommand() *cobra.Command {
	var f webFlags
	cmd := &cobra.Command{
		Use:   "web [flags] FILE [FILE]",
		Short: "Show profiles of any tool in a browser",
		Long: "Web serves the agent's page over files: pprof or OTLP of any tool, or folded text; - is standard input. Two files are compared,\n" +
			"the first is what was before. It serves until it is interrupted, to this machine alone, but to every user of it, without\n" +
			"a token: on a machine that others use show what they may see, or copy the file to one of your own.",
		Example: "  pilotlight web cpu.pb.gz\n" +
			"  pilotlight web old.pb.gz new.pb.gz\n" +
			"  perf script | stackcollapse-perf.pl | pilotlight web -",
		RunE: func(_ *cobra.Command, args []string) error { return show(&f, args) },
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "serve on this `ADDR`, of loopback; port 0 takes a free one")
	cmd.Flags().StringVar(&f.sampleType, "type", "", "show values of this `TYPE`, such as cpu or inuse_space (default: that of the file)")
	return cmd
}

func show(f *webFlags, args []string) error {
	switch {
	case len(args) == 0 || len(args) > 2:
		return fmt.Errorf("web shows one profile, or compares two, got %d: give FILE, or BEFORE and AFTER", len(args))
	case len(args) == 2 && args[0] == "-" && args[1] == "-":
		return errors.New("standard input can be one of the two profiles, not both")
	}
	options := web.Options{Listen: f.listen, Version: version, Target: "files", Log: logger(false)}
	if web.CheckListen(f.listen, options.Security) != nil {
		return fmt.Errorf("listen address %q: web shows files to this machine alone; listen on 127.0.0.1:PORT", f.listen)
	}
	for _, name := range args {
		p, err := readProfile(name, f.sampleType)
		if err != nil {
			return failure{err}
		}
		options.Files = append(options.Files, web.File{Name: name, Profile: p})
	}
	if len(options.Files) == 2 {
		before, after := &options.Files[0], &options.Files[1]
		before.Profile, after.Profile = comparable(before.Profile, after.Profile)
		if a, b := before.Profile.Type, after.Profile.Type; a != b {
			return failure{fmt.Errorf("%s has %s/%s and %s has %s/%s, which cannot be compared: choose by --type",
				before.Name, a.Name, a.Unit, after.Name, b.Name, b.Unit)}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	listener, err := listen(ctx, f.listen)
	if err != nil {
		return failure{err}
	}
	defer listener.Close() // the server closes it too
	server, err := web.New(options)
	if err != nil {
		return failure{err}
	}
	fmt.Fprintf(os.Stderr, "showing %s on %s (Ctrl-C ends)\n", plural(uint64(len(args)), "files"), server.URL(listener))
	if err := server.Serve(ctx, listener); err != nil {
		return failure{err}
	}
	return nil
}
