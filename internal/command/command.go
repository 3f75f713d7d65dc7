// Package command is the command line of the kvstore program: dev, server,
// config and version. It parses flags and calls one function of the package
// that does the work.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvstore/internal/version"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// usageError is a command line that cannot be used.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Main runs the program and returns its exit code: 0; 1 after an error, which
// it prints; 2 after a command line that cannot be used.
func Main(args []string, out, errs io.Writer) int {
	root := Root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	root.InitDefaultCompletionCmd(args...) // it keeps the output that is set now
	strict(root)
	cmd, err := root.ExecuteContextC(context.Background())
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintf(errs, "kvstore: %v\n  `%s --help` shows what is possible\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(errs, "kvstore: %v\n", err)
	return exitError
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
		Version:       version.Full("kvstore"),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(devCommand(), serverCommand(), configCommand(), versionCommand())
	return root
}

// strict makes every command of the tree refuse what it does not know, as a
// usageError. A command that only has subcommands shows its help.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	check := cmd.Args
	if !cmd.Runnable() {
		check = onlySubcommands
		cmd.SuggestionsMinimumDistance = 2
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// onlySubcommands refuses arguments: a subcommand would have taken them.
func onlySubcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		msg += "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return errors.New(msg)
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
