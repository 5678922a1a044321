package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/exporter/destination"
)

func newDoctorOTLPCommand() *cobra.Command {
	var f otlpFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "otlp [flags]",
		Short: "Send a test profile and a test metric to the OTLP receivers",
		Long: "Otlp sends a profile of one function and a metric of one value to each receiver that the agent would send to, tells what was taken and in how long,\n" +
			"and what is wrong otherwise. It takes the agent's --otlp-... flags, OTEL_... variables and file.\n" +
			"Status 0: all was taken; 1: something was not.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings := settings{
				flags: cmd.Flags(), environ: os.Environ(), more: f.applyOpenTelemetry, sections: sections{"otlp-destinations": f.readDestinations},
				others: agentSetting,
			}
			if err := settings.apply(); err != nil {
				return err
			}
			f.warn()
			if err := f.check(); err != nil {
				return err
			}
			list, err := f.options()
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return errors.New("no receiver is named: give --otlp-endpoint, OTEL_EXPORTER_OTLP_ENDPOINT, or --config with the agent's file")
			}
			trials := make([]destination.Trial, len(list))
			failed := false
			for i, o := range list {
				trials[i] = destination.Try(cmd.Context(), o)
				failed = failed || !trials[i].Taken
			}
			write := writeTrials
			if asJSON {
				write = func(w io.Writer, trials []destination.Trial) error { return json.NewEncoder(w).Encode(trials) }
			}
			if err := write(cmd.OutOrStdout(), trials); err != nil {
				return failure{err}
			}
			if failed {
				return exitError{exitFailure}
			}
			return nil
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().String("config", "", "read settings from the agent's YAML `FILE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the report as JSON")
	return cmd
}

func writeTrials(w io.Writer, trials []destination.Trial) error {
	found := map[destination.Signal]string{
		destination.Profiles: fmt.Sprintf("service %s, %d samples of %s", destination.TrialService, destination.TrialSamples, destination.TrialFunction),
		destination.Metrics:  fmt.Sprintf("metric %s of service %s, value 1", destination.TrialMetric, destination.TrialService),
	}
	for _, t := range trials {
		var err error
		if t.Taken {
			_, err = fmt.Fprintf(w, "ok    %s to %s by %s: taken in %.1f ms, %d bytes\n      look there for %s", t.Signal, t.Endpoint, t.Protocol, t.Millis, t.Bytes, found[t.Signal])
			if t.Signal == destination.Profiles && err == nil {
				_, err = fmt.Fprint(w, "; if it is there without a value, the receiver reads another version of the protocol")
			}
			if t.Warning != "" && err == nil {
				_, err = fmt.Fprintf(w, "\n      it warns: %s", t.Warning)
			}
		} else {
			_, err = fmt.Fprintf(w, "fail  %s to %s by %s: %s", t.Signal, t.Endpoint, t.Protocol, t.Error)
			if t.Remedy != "" && err == nil {
				_, err = fmt.Fprintf(w, "\n      to do: %s", t.Remedy)
			}
		}
		if _, lastErr := fmt.Fprintln(w); err != nil || lastErr != nil {
			return errors.Join(err, lastErr)
		}
	}
	return nil
}
