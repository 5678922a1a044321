package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/doctor"
)

// exitError ends the program with a status and without a message: what there
// is to say was said.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	var f kernelFlags
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Tell what sampling needs and this machine lacks",
		Long: "Doctor tries what sampling needs, and tells what is lost where something is missing and the\n" +
			"command that mends it. It changes nothing. Run it as you will run the agent.\n" +
			"Status 0: sampling can work; 1: something that it needs is missing.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			without, err := bpf.ParseFeatures(f.without)
			if err != nil {
				return err
			}
			report := doctor.Run(cmd.Context(), doctor.Options{Without: without, KernelBTF: f.btf})
			write := report.WriteText
			if asJSON {
				write = report.WriteJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return failure{err}
			}
			if !report.CanSample() {
				return exitError{exitFailure}
			}
			return nil
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the report as JSON")
	cmd.AddCommand(newDoctorUnwindCommand(), newDoctorOTLPCommand())
	return cmd
}

func newDoctorUnwindCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unwind FILE...",
		Short: "Tell what the unwind tables of programs and libraries hold",
		Long: "Unwind compiles what ELF files tell of their frames (.eh_frame, .debug_frame, Go's pclntab) as the profiler does, and\n" +
			"tells how many functions they have, how much memory the rows take, and which code has none: stacks end there.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			for _, path := range paths {
				report, err := doctor.ExamineUnwinding(path)
				if err != nil {
					return failure{err}
				}
				if err := report.WriteText(cmd.OutOrStdout()); err != nil {
					return failure{err}
				}
			}
			return nil
		},
	}
}
