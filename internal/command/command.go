// Package command is the command line of the kvstore program: dev, server,
// config and version. It parses flags and calls one function of the package
// that does the work.
package command

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kvstore/internal/version"
)

// Main runs the program and returns its exit code: 0, or 1 after an error,
// which it prints.
func Main(args []string, out, errs io.Writer) int {
	root := Root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(errs, "kvstore: %v\n", err)
		return 1
	}
	return 0
}

// ServerMain is Main for KVStoreServer (S0.4): without a subcommand it is
// `kvstore server`.
func ServerMain(args []string, out, errs io.Writer) int {
	root := Root()
	known, _, err := root.Find(args)
	if err != nil || known == root && !asksHelp(args) {
		args = append([]string{"server"}, args...)
	}
	return Main(args, out, errs)
}

func asksHelp(args []string) bool {
	return len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help")
}

// Root returns the whole command tree.
func Root() *cobra.Command {
	root := &cobra.Command{
		Use:           "kvstore",
		Short:         "A strongly consistent, replicated key-value store",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.AddCommand(devCommand(), serverCommand(), configCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Full("kvstore"))
			return err
		},
	}
}

// sameSignal: a signal this soon after the first is the first one delivered
// twice (a terminal and a parent both send it), not somebody in a hurry.
const sameSignal = time.Second

// stopSignals returns a context that the first signal to stop ends; a later
// one is sent on hurry.
func stopSignals(parent context.Context) (ctx context.Context, hurry <-chan struct{}, release func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := notifySignals()
	second := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var first time.Time
		for range signals.c {
			cancel()
			switch {
			case first.IsZero():
				first = time.Now()
			case time.Since(first) > sameSignal:
				select {
				case second <- struct{}{}:
				default: // already in a hurry
				}
			}
		}
	}()
	return ctx, second, func() {
		signals.stop()
		<-done
		cancel()
	}
}
