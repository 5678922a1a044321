package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/pilotlight/pilotlight/exporter/destination"
)

// Every variable of OpenTelemetry means what its flag means, for all signals and for one; that of a signal goes before that of all, and a flag before both.
func TestVariablesOfOpenTelemetry(t *testing.T) {
	for _, c := range []struct {
		name, value, other string // of the variable; other is another value
		get                func(destination.Options) any
		want, wantOther    any
	}{
		{"ENDPOINT", "http://a:1", "http://b:2", func(o destination.Options) any { return o.Endpoint }, "http://a:1", "http://b:2"},
		{"PROTOCOL", "http/protobuf", "grpc", func(o destination.Options) any { return o.Protocol }, "http/protobuf", "grpc"},
		{"HEADERS", "k=v%20w", "k=x", func(o destination.Options) any { return o.Headers["k"] }, "v w", "x"},
		{"COMPRESSION", "zstd", "none", func(o destination.Options) any { return o.Compression }, "zstd", ""},
		{"TIMEOUT", "2500", "0", func(o destination.Options) any { return o.Timeout }, 2500 * time.Millisecond, 24 * time.Hour},
		{"CERTIFICATE", "a.pem", "b.pem", func(o destination.Options) any { return o.CAFile }, "a.pem", "b.pem"},
		{"CLIENT_CERTIFICATE", "a.pem", "b.pem", func(o destination.Options) any { return o.CertFile }, "a.pem", "b.pem"},
		{"CLIENT_KEY", "a.key", "b.key", func(o destination.Options) any { return o.KeyFile }, "a.key", "b.key"},
		{"INSECURE", "true", "false", func(o destination.Options) any { return o.Insecure }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			// options are those of profiles and of metrics.
			options := func(args []string, environ ...string) map[destination.Signal]any {
				var f otlpFlags
				flags := pflag.NewFlagSet("", pflag.ContinueOnError)
				f.add(flags)
				if err := flags.Parse(args); err != nil {
					t.Fatal(err)
				}
				if c.name != "ENDPOINT" {
					environ = append(environ, otlpVariablePrefix+"ENDPOINT=http://a:1")
				}
				if err := f.applyOpenTelemetry(flags, environ); err != nil || len(f.warnings) > 0 {
					t.Fatal(err, f.warnings)
				}
				list, err := f.options()
				if err != nil {
					t.Fatal(err)
				}
				of := make(map[destination.Signal]any)
				for _, o := range list {
					of[o.Signal] = c.get(o)
				}
				return of
			}
			expect := func(got map[destination.Signal]any, profiles, metrics any) {
				t.Helper()
				if got[destination.Profiles] != profiles || got[destination.Metrics] != metrics {
					t.Errorf("%v, want %v of profiles and %v of metrics", got, profiles, metrics)
				}
			}
			all, flag := otlpVariablePrefix+c.name+"=", "--"+otlpPrefix+strings.ToLower(strings.ReplaceAll(c.name, "_", "-"))+"="
			profiles, metrics := otlpVariablePrefix+"PROFILES_"+c.name+"=", otlpVariablePrefix+"METRICS_"+c.name+"="
			expect(options(nil, all+c.value), c.want, c.want)
			expect(options(nil, all+c.other), c.wantOther, c.wantOther)
			expect(options(nil, all+c.value, profiles+c.other), c.wantOther, c.want)
			expect(options(nil, all+c.value, metrics+c.other), c.want, c.wantOther)
			expect(options(nil, profiles+c.value, metrics+c.other), c.want, c.wantOther)
			value := c.value
			if c.name == "TIMEOUT" { // flags have units
				value = "2500ms"
			}
			expect(options([]string{flag + value}, all+c.other), c.want, c.want)
		})
	}
}
