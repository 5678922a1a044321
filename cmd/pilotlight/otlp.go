package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.yaml.in/yaml/v3"

	"github.com/pilotlight/pilotlight/exporter/destination"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/queue"
)

// otlpFlags say where OTLP goes. Each setting of a receiver has three flags: for all signals, for profiles and for metrics; and each of these a variable
// of OpenTelemetry: --otlp-profiles-endpoint is OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT.
type otlpFlags struct {
	all        receiverFlags
	of         map[destination.Signal]*receiverFlags
	list       []destinationSettings // of the file
	queueBytes byteSize
	timestamps bool
	group      string
	every      time.Duration
	// off are signals that a variable of OpenTelemetry switches off, wherever they would go.
	off map[destination.Signal]bool
	// warnings are about variables that were passed over.
	warnings []string
}

// receiverFlags are those of one scope.
type receiverFlags struct {
	endpoints               []string
	protocol                string
	headers                 string
	compression             string
	timeout                 time.Duration
	certificate, clientCert string
	clientKey               string
	insecure                bool
	flags                   *pflag.FlagSet
	prefix                  string
}

const (
	otlpPrefix          = "otlp-"
	otlpVariablePrefix  = "OTEL_EXPORTER_OTLP_"
	noCompression       = "none"
	groupProcess        = "process"
	groupService        = "service"
	defaultMetricsEvery = time.Minute
)

func (f *otlpFlags) add(flags *pflag.FlagSet) {
	f.all.add(flags, otlpPrefix, "")
	f.of = make(map[destination.Signal]*receiverFlags)
	for _, s := range destination.Signals {
		of := &receiverFlags{}
		of.add(flags, otlpPrefix+string(s)+"-", string(s))
		f.of[s] = of
	}
	f.queueBytes = queue.DefaultMaxBytes
	flags.Var(&f.queueBytes, "otlp-queue-bytes", "messages that wait for a receiver take this `SIZE` on disk at most, for each signal; the oldest go first")
	flags.BoolVar(&f.timestamps, "otlp-timestamps", false, "send the time of each sample, not their number alone")
	flags.StringVar(&f.group, "otlp-group", groupProcess, "make a resource of each process or service: which process it was stands at the samples then")
	flags.DurationVar(&f.every, "otlp-metrics-interval", defaultMetricsEvery, "send metrics this often (OTEL_METRIC_EXPORT_INTERVAL)")
}

// add adds the flags of a scope. Those of one signal are like the others and stand in docs/otlp.md, not in --help.
func (f *receiverFlags) add(flags *pflag.FlagSet, prefix, signal string) {
	f.flags, f.prefix = flags, prefix
	flags.StringSliceVar(&f.endpoints, prefix+"endpoint", nil, "send profiles and metrics by OTLP to this `URL`, such as http://127.0.0.1:4317, or to several; each setting here "+
		"is also there for one signal (--otlp-profiles-endpoint) and as OpenTelemetry's variable (OTEL_EXPORTER_OTLP_ENDPOINT)")
	flags.StringVar(&f.protocol, prefix+"protocol", destination.GRPC, "speak this `PROTOCOL`: grpc or http/protobuf")
	flags.StringVar(&f.headers, prefix+"headers", "", "send these headers, `KEY=VALUE,...`; everyone on the host can read a command line, so secrets belong into the environment or the file")
	flags.StringVar(&f.compression, prefix+"compression", destination.Gzip, "compress messages: gzip, zstd or none")
	flags.DurationVar(&f.timeout, prefix+"timeout", destination.DefaultTimeout, "wait this long for an answer")
	flags.StringVar(&f.certificate, prefix+"certificate", "", "trust receivers that the authorities in this PEM `FILE` vouch for, instead of the system's")
	flags.StringVar(&f.clientCert, prefix+"client-certificate", "", "show receivers the certificate in this PEM `FILE`")
	flags.StringVar(&f.clientKey, prefix+"client-key", "", "that certificate's key, in this PEM `FILE`")
	flags.BoolVar(&f.insecure, prefix+"insecure", false, "speak without TLS where the endpoint is a bare HOST:PORT")
	if signal == "" {
		return
	}
	flags.VisitAll(func(flag *pflag.Flag) {
		if strings.HasPrefix(flag.Name, prefix) {
			flag.Hidden = true
		}
	})
}

// applyOpenTelemetry fills flags that the command line left open from the variables of OpenTelemetry. Its specification has it that one of no meaning is
// passed over with a warning: they are often set for all programs of a host.
func (f *otlpFlags) applyOpenTelemetry(flags *pflag.FlagSet, environ []string) error {
	variables := make(map[string]string)
	for _, v := range environ {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") && value != "" { // empty is the same as unset, says the specification
			variables[name] = value
		}
	}
	set := func(flag, variable, value string) {
		if value == "" || flags.Changed(flag) {
			return
		}
		if err := flags.Set(flag, value); err != nil { // the value may be a secret
			f.warnings = append(f.warnings, fmt.Sprintf("environment variable %s is passed over: it is not what --%s takes", variable, flag))
		}
	}
	for _, of := range f.scopes() {
		for _, name := range []string{"endpoint", "protocol", "headers", "compression", "timeout", "certificate", "client-certificate", "client-key", "insecure"} {
			flag := of.prefix + name
			variable := otlpVariablePrefix + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag, otlpPrefix), "-", "_"))
			value := variables[variable]
			switch {
			case value == "":
			case name == "timeout":
				value = milliseconds(value)
			case name == "insecure":
				value = strconv.FormatBool(strings.EqualFold(value, "true"))
			}
			set(flag, variable, value)
		}
	}
	if v := variables["OTEL_METRIC_EXPORT_INTERVAL"]; v != "" {
		set("otlp-metrics-interval", "OTEL_METRIC_EXPORT_INTERVAL", milliseconds(v))
	}
	f.off = make(map[destination.Signal]bool)
	if strings.EqualFold(variables["OTEL_SDK_DISABLED"], "true") {
		for _, s := range destination.Signals {
			f.off[s] = true
		}
	}
	if list := variables["OTEL_METRICS_EXPORTER"]; list != "" && !slices.ContainsFunc(strings.Split(list, ","), func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), "otlp") }) {
		f.off[destination.Metrics] = true
	}
	return nil
}

// warn says what was passed over, where it would matter.
func (f *otlpFlags) warn() {
	if list, err := f.options(); err != nil || len(list) == 0 {
		return
	}
	for _, w := range f.warnings {
		fmt.Fprintf(os.Stderr, "pilotlight: warning: %s\n", w)
	}
	forgetVariables()
}

// milliseconds is a number of them as a duration; 0 is no limit.
func milliseconds(text string) string {
	if text == "0" {
		return "24h"
	}
	return text + "ms"
}

func (f *otlpFlags) scopes() []*receiverFlags {
	list := []*receiverFlags{&f.all}
	for _, s := range destination.Signals {
		list = append(list, f.of[s])
	}
	return list
}

// destinationSettings are the settings of one receiver, as the flags have them.
type destinationSettings struct {
	Endpoint          string               `yaml:"endpoint"`
	Signals           []destination.Signal `yaml:"signals"`
	Protocol          string               `yaml:"protocol"`
	Headers           map[string]string    `yaml:"headers"`
	Compression       string               `yaml:"compression"`
	Timeout           time.Duration        `yaml:"timeout"`
	Certificate       string               `yaml:"certificate"`
	ClientCertificate string               `yaml:"client-certificate"`
	ClientKey         string               `yaml:"client-key"`
	Insecure          bool                 `yaml:"insecure"`
}

// readDestinations reads the list from the file.
func (f *otlpFlags) readDestinations(node *yaml.Node) error {
	text, err := yaml.Marshal(node)
	if err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)                       // which a Node's own Decode does not have
	if err := decoder.Decode(&f.list); err != nil { // its text may repeat a header
		return fmt.Errorf("line %d: want a list of receivers, each with an endpoint and what else docs/otlp.md lists", node.Line)
	}
	return nil
}

// options are those of every destination.
func (f *otlpFlags) options() ([]destination.Options, error) {
	var list []destination.Options
	for _, s := range destination.Signals {
		of := f.of[s]
		endpoints, exact := of.endpoints, true
		if endpoints == nil {
			endpoints, exact = f.all.endpoints, false
		}
		headers, err := destination.ParseHeaders(pick(of, &f.all, "headers").headers)
		if err != nil {
			return nil, err
		}
		for _, endpoint := range endpoints {
			list = append(list, destination.Options{
				Signal: s, Endpoint: endpoint, Exact: exact, Protocol: pick(of, &f.all, "protocol").protocol, Headers: headers,
				Compression: compression(pick(of, &f.all, "compression").compression), Timeout: pick(of, &f.all, "timeout").timeout,
				CAFile: pick(of, &f.all, "certificate").certificate, CertFile: pick(of, &f.all, "client-certificate").clientCert,
				KeyFile: pick(of, &f.all, "client-key").clientKey, Insecure: pick(of, &f.all, "insecure").insecure, Version: version,
			})
		}
	}
	for _, d := range f.list {
		signals := d.Signals
		if len(signals) == 0 {
			signals = destination.Signals
		}
		for _, s := range signals {
			list = append(list, destination.Options{
				Signal: s, Endpoint: d.Endpoint, Protocol: d.Protocol, Headers: d.Headers, Compression: compression(d.Compression), Timeout: d.Timeout,
				CAFile: d.Certificate, CertFile: d.ClientCertificate, KeyFile: d.ClientKey, Insecure: d.Insecure, Version: version,
			})
		}
	}
	return slices.DeleteFunc(list, func(o destination.Options) bool { return f.off[o.Signal] }), nil
}

// pick is the signal's own scope where it has the setting, or else that of all signals.
func pick(of, all *receiverFlags, name string) *receiverFlags {
	if of.flags.Changed(of.prefix + name) {
		return of
	}
	return all
}

func compression(name string) string {
	switch name {
	case "":
		return destination.Gzip
	case noCompression:
		return ""
	}
	return name
}

// check says what is wrong with the flags, before anything is opened.
func (f *otlpFlags) check() error {
	list, err := f.options()
	errs := []error{err}
	seen := make(map[string]bool)
	for _, o := range list {
		errs = append(errs, o.Check())
		if dir := queueDir(&o); seen[dir] {
			errs = append(errs, fmt.Errorf("OTLP: %s is a destination of %s twice", o.Name(), o.Signal))
		} else {
			seen[dir] = true
		}
	}
	if f.group != groupProcess && f.group != groupService {
		errs = append(errs, fmt.Errorf("otlp-group %q: want %s or %s", f.group, groupProcess, groupService))
	}
	if f.queueBytes < 1<<20 {
		errs = append(errs, errors.New("otlp-queue-bytes: want 1MiB or more"))
	}
	if f.every < time.Second {
		errs = append(errs, errors.New("otlp-metrics-interval: want 1s or more"))
	}
	return errors.Join(errs...)
}

// queueDir is where messages wait, below the data directory.
func queueDir(o *destination.Options) string {
	sum := sha256.Sum256([]byte(o.Name()))
	return filepath.Join("queue", string(o.Signal)+"-"+hex.EncodeToString(sum[:6]))
}

// forgetVariables takes from the environment what was read of it: the library that encodes metrics reads it too, and tells of what it does not understand.
func forgetVariables() {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, otlpVariablePrefix) {
			os.Unsetenv(name)
		}
	}
}

// senders are all destinations of an agent.
type senders []*destination.Destination

// open starts them. Dir is the data directory, "" where nothing can be written there: messages wait in memory.
func (f *otlpFlags) open(dir string, log *slog.Logger) (senders, error) {
	list, err := f.options()
	if err != nil {
		return nil, err
	}
	var all senders
	for _, o := range list {
		q := queue.Options{MaxBytes: int64(f.queueBytes), Log: log}
		if dir != "" {
			q.Dir = filepath.Join(dir, queueDir(&o))
		}
		d, err := destination.Start(o, q)
		if err != nil && q.Dir != "" {
			sayLoss(fmt.Sprintf("the queue on disk of %s for %s, what waits is lost with the agent: %v", o.Signal, o.Name(), err))
			q.Dir = ""
			d, err = destination.Start(o, q)
		}
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, d)
	}
	if dir != "" {
		forgetQueues(filepath.Join(dir, "queue"), list, log)
	}
	return all, nil
}

// forgetQueues removes the queues of receivers that are not configured any more, when nothing in them would be delivered any more either.
func forgetQueues(dir string, list []destination.Options, log *slog.Logger) {
	used := make(map[string]bool)
	for _, o := range list {
		used[filepath.Base(queueDir(&o))] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there are none
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil || used[e.Name()] || !info.IsDir() {
			continue
		}
		if time.Since(info.ModTime()) < queue.DefaultMaxAge {
			log.Warn("there is a queue of a receiver that is not configured any more; it goes when it has lain still for a day", "queue", path)
		} else if err := os.RemoveAll(path); err != nil {
			log.Warn("the queue of a receiver that is not configured any more cannot be removed", "err", err)
		}
	}
}

func (s senders) of(signal destination.Signal) (list []*destination.Destination) {
	for _, d := range s {
		if d.Signal() == signal {
			list = append(list, d)
		}
	}
	return list
}

// stats are those of all.
func (s senders) stats() []destination.Stats {
	list := make([]destination.Stats, len(s))
	for i, d := range s {
		list[i] = d.Stats()
	}
	return list
}

// flushTime is what an ending agent waits for receivers: it must be gone within five seconds.
const flushTime = 2500 * time.Millisecond

// Close sends what waits, as far as that goes in a moment; the rest stays on disk.
func (s senders) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	var errs []error
	for _, d := range s {
		d.Hurry()
	}
	for _, d := range s {
		d.Flush(ctx)
	}
	for _, d := range s {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// hostResource is what is known of this host, and what the operator adds by OTEL_RESOURCE_ATTRIBUTES.
func hostResource(ctx context.Context, log *slog.Logger) *resource.Resource {
	r, err := resource.New(ctx, resource.WithHost(), resource.WithHostID(), resource.WithOSType(), resource.WithFromEnv())
	if err != nil { // of what could not be found; the rest is there
		log.Warn("not all is known of this host that OTLP says", "err", err)
	}
	return r
}

// encoder makes the messages of profiles.
func (f *otlpFlags) encoder(host *resource.Resource) (*otlp.Encoder, error) {
	o := otlp.Options{
		Version: version, Timestamps: f.timestamps, ByService: f.group == groupService, MaxBytes: otlp.ReceiversMaxBytes, MaxSamples: otlp.ReceiversMaxSamples, Resource: make(map[string]string),
	}
	rand.Read(o.Seed[:]) // it never fails
	for _, a := range host.Attributes() {
		if ofHost(string(a.Key)) {
			o.Resource[string(a.Key)] = a.Value.String()
		}
	}
	return otlp.NewEncoder(o)
}

// ofHost says whether an attribute is of the host, and so of each process on it, and not of the agent alone.
func ofHost(key string) bool {
	for _, prefix := range []string{"k8s.node.", "k8s.cluster."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	for _, prefix := range []string{"service.", "process.", "container.", "k8s."} {
		if strings.HasPrefix(key, prefix) {
			return false
		}
	}
	return true
}

// metricsResource is the host's with what this program is.
func metricsResource(host *resource.Resource) *resource.Resource {
	own := []attribute.KeyValue{semconv.ServiceName("pilotlight"), semconv.ServiceVersion(version)}
	r, err := resource.Merge(resource.NewSchemaless(own...), host)
	if err != nil { // of schemas alone
		return host
	}
	return r
}
