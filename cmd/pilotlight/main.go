// Command pilotlight profiles Linux hosts: once (record) or always (agent).
//
// This package parses flags and wires; the work is done in the packages below it.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/profiler/doctor"
)

func main() { os.Exit(run(os.Args[1:])) }

// Exit codes of the contract.
const (
	exitFailure = 1 // the machine refuses
	exitUsage   = 2 // the command line is wrong
)

// failure marks errors of the machine; all others are errors of the command line.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func run(args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	err := root.Execute()
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, new(failure)):
		sayError(err)
		return exitFailure
	}
	sayError(err)
	fmt.Fprintf(os.Stderr, "`pilotlight help` lists commands and flags\n")
	return exitUsage
}

// sayError writes an error, of which each line is one: the names in it come from anywhere.
func sayError(err error) {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = doctor.Printable(line)
	}
	fmt.Fprintf(os.Stderr, "pilotlight: %s\n", strings.Join(lines, "\n"))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pilotlight",
		Short: "Always-on profiler for Linux hosts",
		Long: "Pilotlight samples every process of a Linux host by eBPF, names the stacks on the host,\n" +
			"and serves them as pprof profiles.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("which command? record profiles once, agent profiles always, query asks the past, doctor tells what is missing")
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newRecordCommand(), newAgentCommand(), newTopCommand(), newQueryCommand(), newDiffCommand(), newWebCommand(), newConvertCommand(), newDoctorCommand(), newVersionCommand())
	root.AddCommand(newUnavailableCommand("symbolize"))
	return root
}

// newUnavailableCommand answers for a command of the contract that is not built yet.
func newUnavailableCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%s is not available in this version", name)
		},
	}
}

// noArguments is cobra.NoArgs in plainer words.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q", cmd.Name(), strings.Join(args, " "))
	}
	return nil
}
