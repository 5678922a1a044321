package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/pilotlight/pilotlight/exporter"
	"github.com/pilotlight/pilotlight/exporter/destination"
	"github.com/pilotlight/pilotlight/exporter/metrics"
	"github.com/pilotlight/pilotlight/exporter/relabel"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/upload"
	"github.com/pilotlight/pilotlight/exporter/web"
	"github.com/pilotlight/pilotlight/profiler"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/sandbox"
)

type agentFlags struct {
	samplingFlags
	history  historyFlags
	upload   uploadFlags
	otlp     otlpFlags
	rules    relabel.Rules
	groups   functionGroups
	listen   string
	dataDir  string
	config   string
	token    string
	cert     string
	key      string
	insecure bool
	verbose  bool
	seccomp  string
}

// interval is the span of one profile handed to the exporters.
const interval = 10 * time.Second

func newAgentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Profile always and serve profiles",
		Long: "Agent samples the host or the given target until it is stopped, and serves profiles:\n\n" +
			"  go tool pprof http://127.0.0.1:7070/debug/pprof/profile?seconds=5\n\n" +
			"It keeps a history of profiles as Parquet files in the data directory.\n\n" +
			"Each flag can also come from the environment (--listen is PILOTLIGHT_LISTEN) or from the\n" +
			"YAML file of --config (listen: ADDR); flags go before the environment, the environment before the file.\n" +
			"The file alone has rules that drop samples and change labels (relabel:, see docs/identity.md).",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings := settings{
				flags: cmd.Flags(), environ: os.Environ(), more: f.otlp.applyOpenTelemetry,
				sections: sections{"relabel": f.relabel, "otlp-destinations": f.otlp.readDestinations, "function-groups": f.groups.read},
			}
			if err := settings.apply(); err != nil {
				return err
			}
			f.otlp.warn()
			if err := errors.Join(f.check(cmd.Flags()), f.history.check(), f.upload.check(&f.history), f.otlp.check()); err != nil {
				return err
			}
			return agent(&f)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:7070", "serve HTTP on this `ADDR`; port 0 takes a free one")
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "/var/lib/pilotlight", "keep the history in this `DIR`, and lock it against a second agent")
	f.history.add(cmd.Flags())
	f.upload.add(cmd.Flags())
	f.otlp.add(cmd.Flags())
	f.groups = newFunctionGroups()
	cmd.Flags().Var(&f.groups, "function-group", "count the CPU time of functions that match this regular expression, `NAME=REGEX`; beside those of docs/metrics.md. NAME= takes one away")
	cmd.Flags().StringVar(&f.config, "config", "", "read settings from this YAML `FILE`")
	cmd.Flags().StringVar(&f.token, "token-file", "", "demand the bearer token in this `FILE`")
	cmd.Flags().StringVar(&f.cert, "tls-cert", "", "serve HTTPS with the certificate in this `FILE`")
	cmd.Flags().StringVar(&f.key, "tls-key", "", "the certificate's key, in this `FILE`")
	cmd.Flags().BoolVar(&f.insecure, "insecure-listen", false, "serve other hosts without TLS or token: everyone who reaches the port can read every profile")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "say on stderr what could not be read, and why")
	cmd.Flags().StringVar(&f.seccomp, "seccomp", string(sandbox.SeccompErrno), "after the start, system calls that are not needed: errno (they fail), "+
		"trap (they end the agent with their stack), off (no filter)")
	return cmd
}

// relabel takes the rules of the configuration file.
func (f *agentFlags) relabel(node *yaml.Node) (err error) {
	f.rules, err = relabel.Parse(node)
	return err
}

func agent(f *agentFlags) error {
	config, err := f.samplingFlags.config()
	if err != nil {
		return err
	}
	if len(f.rules) > 0 {
		config.Relabel = f.rules.Apply
	}
	seccomp := sandbox.Seccomp(f.seccomp)
	if !slices.Contains([]sandbox.Seccomp{sandbox.SeccompErrno, sandbox.SeccompTrap, sandbox.SeccompOff}, seccomp) {
		return fmt.Errorf("seccomp %q: want %s, %s or %s", f.seccomp, sandbox.SeccompErrno, sandbox.SeccompTrap, sandbox.SeccompOff)
	}
	options := web.Options{
		Listen: f.listen, Version: version, Target: f.samplingFlags.String(), Event: f.event, FrequencyHz: f.frequency,
		Security: web.Security{TokenFile: f.token, CertFile: f.cert, KeyFile: f.key, InsecureListen: f.insecure},
	}
	if err := web.CheckListen(options.Listen, options.Security); err != nil {
		return err
	}
	if risk := web.Risk(options.Listen, options.Security); risk != "" {
		fmt.Fprintf(os.Stderr, "pilotlight: warning: %s\n", risk)
	}
	// A guest takes one core at most, but for answers of the history. It also saves a fifth of the CPU time: with more, the Go
	// scheduler wakes threads that look for work which is done before they find it. Nor does it take twice what it needs before it looks what it can
	// give back: that would be 14 MB more with 20,000 stacks, to save a fiftieth of its CPU time.
	usual, most := usualExtent, burstExtent
	if os.Getenv("GOMAXPROCS") != "" {
		usual.cpus, most.cpus = 0, 0
	}
	if os.Getenv("GOGC") != "" {
		usual.garbage, most.garbage = 0, 0
	}
	options.Hurry = newBurst(usual, most).take
	config.Log = logger(f.verbose)
	config.Opened = func() {
		if err := sandbox.Enter(seccomp); err != nil {
			sayLoss(fmt.Sprintf("some of the agent's own confinement: %v", err))
		}
	}
	options.Log = config.Log
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	if err := runAgent(ctx, f, config, options); err != nil {
		return failure{err}
	}
	return nil
}

func runAgent(ctx context.Context, f *agentFlags, config profiler.Config, options web.Options) (err error) {
	lock, lockErr := lockDataDir(f.dataDir)
	switch {
	case lockErr == nil:
		defer closeInto(&err, lock)
	case !unwritable(lockErr):
		return lockErr
	}
	listener, err := listen(ctx, f.listen)
	if err != nil {
		return err
	}
	defer listener.Close() // the server closes it too

	var history *store.Store
	historyErr := lockErr
	if lockErr == nil && !f.history.off {
		if history, historyErr = f.history.open(f.dataDir, config.Log); historyErr == nil {
			defer closeInto(&err, history)
		}
	}
	queueDir := f.dataDir
	if lockErr != nil {
		queueDir = ""
	}
	senders, err := f.otlp.open(queueDir, config.Log)
	if err != nil {
		return err
	}
	defer closeInto(&err, senders) // after everything that hands messages to them
	fanOut := exporter.NewFanOut(config.Log)
	defer fanOut.Close()
	config.Interval, config.Sink, config.SampleTimes = interval, fanOut.Export, true
	p, err := profiler.Start(config)
	if err != nil {
		return err
	}
	defer closeInto(&err, p)
	sayLosses(p)
	if lockErr != nil {
		sayLoss(fmt.Sprintf("the guard against a second agent: %v", lockErr))
	}
	if historyErr != nil && !f.history.off {
		sayLoss(fmt.Sprintf("the history: %v", historyErr))
	}
	metricsOptions := metrics.Options{Version: version, Groups: f.groups.of, Log: config.Log, Exporters: fanOut.Accounts}
	if history != nil {
		metricsOptions.History = history.Stats
		fanOut.Add("history", history)
	}
	if f.upload.url != "" && history != nil {
		uploader, uploadErr := upload.Start(f.upload.options(f.dataDir, history.Host(), config.Log))
		if uploadErr != nil {
			return uploadErr
		}
		defer closeInto(&err, uploader)
		metricsOptions.Upload = uploader.Stats
	}
	host := hostResource(ctx, config.Log)
	if to := senders.of(destination.Profiles); len(to) > 0 {
		encoder, err := f.otlp.encoder(host)
		if err != nil {
			return err
		}
		fanOut.Add("otlp", destination.NewProfileExporter(encoder, to, config.Log))
	}
	if to := senders.of(destination.Metrics); len(to) > 0 {
		metricsOptions.Push = destination.NewMetricsTransport(to)
	}
	metricsOptions.PushEvery, metricsOptions.Resource = f.otlp.every, metricsResource(host)
	metricsOptions.Destinations = senders.stats
	m, err := metrics.New(p, metricsOptions)
	if err != nil {
		return err
	}
	defer m.Shutdown(context.WithoutCancel(ctx))
	options.Profiler, options.Metrics = p, m.Handler()
	if history != nil {
		options.History = store.NewReader(f.dataDir, config.Log)
	}
	server, err := web.New(options)
	if err != nil {
		return err
	}
	fanOut.Add("metrics", exporterFunc(m.Export))
	fanOut.Add("page", exporterFunc(server.Export))
	fmt.Fprintf(os.Stderr, "sampling %s at %d Hz; listening on %s\n", f.samplingFlags.String(), f.frequency, server.URL(listener))
	return serve(ctx, server, listener, p, config)
}

// serve runs until a signal or a failure of either the server or the sampling. Where all processes of the target have
// ended it goes on too: what was sampled can still be asked for.
func serve(ctx context.Context, server *web.Server, listener net.Listener, p *profiler.Profiler, config profiler.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	var look <-chan time.Time
	if config.Target.HasPIDs() {
		look = time.Tick(time.Second)
	}
	for {
		select {
		case err := <-served:
			return err
		case <-p.Done():
			err := p.Stop()
			config.Log.Error("sampling ended", "err", err)
			cancel()
			return errors.Join(err, <-served)
		case <-ctx.Done():
			// At once, not when the server has ended: what clients wait for is complete then, and nothing more is sampled meanwhile.
			_ = p.Stop() // its Close tells
			return <-served
		case <-look:
			if !p.HasTargets() {
				look = nil
				config.Log.Warn("no target process is left, and nothing more is sampled: stop the agent, or start it with another target")
			}
		}
	}
}

type exporterFunc func(*profile.Profile)

func (f exporterFunc) Export(p *profile.Profile) { f(p) }

func closeInto(err *error, c io.Closer) { *err = errors.Join(*err, c.Close()) }

// agentSetting says whether the agent's file may have a setting of this name.
func agentSetting(name string) bool {
	return name == "relabel" || name == "function-groups" || newAgentCommand().Flags().Lookup(name) != nil
}
