package ctl

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot builds the whole command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "kvctl",
		Short: "Read, write and look after a kvstore cluster",
		Long: "Read, write and look after a kvstore cluster.\n\n" +
			"`kvctl HOST:PORT` is short for `kvctl shell HOST:PORT`.",
		SilenceUsage: true, SilenceErrors: true, SuggestionsMinimumDistance: 2,
		Args: usageArgs(rootArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return a.runShell(args)
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.opts.check() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{Err: err} })
	a.globalFlags(root)
	root.AddCommand(
		a.putCmd(), a.getCmd(), a.existsCmd(), a.deleteCmd(), a.listCmd(), a.batchCmd(),
		a.importCmd(), a.exportCmd(), a.statusCmd(), a.digestCmd(), a.namespaceCmd(),
		a.contextCmd(), a.versionCmd(),
		&cobra.Command{Use: "exit-codes", Short: "The codes kvctl ends with", Long: exitHelp},
	)
	if a.inShell {
		root.CompletionOptions.DisableDefaultCmd = true
	} else {
		root.AddCommand(a.shellCmd())
	}
	return root
}

func rootArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || len(args) == 1 && looksLikeEndpoint(args[0]) {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q", args[0])
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		msg += "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return errors.New(msg)
}

func (a *app) globalFlags(root *cobra.Command) {
	f, o := root.PersistentFlags(), &a.opts
	f.StringVarP(&o.output, "output", "o", o.output, "table, json or raw (default: what suits the command)")
	if a.inShell {
		return
	}
	o.Add(f)
}

// check refuses options that no command accepts.
func (o *options) check() error {
	switch o.output {
	case "", formatTable, formatJSON, formatRaw:
	default:
		return usagef("--output %q: want table, json or raw", o.output)
	}
	if o.Timeout <= 0 {
		return usagef("--timeout %s: want more than 0", o.Timeout)
	}
	return nil
}

// usageArgs makes errors about arguments usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{Err: err}
		}
		return nil
	}
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: usageArgs(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return codeError{error: errors.New("no subcommand"), code: exitUsage, silent: true}
	}}
	c.AddCommand(subs...)
	return c
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of kvctl", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			version, revision := "(devel)", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = " " + s.Value
					}
				}
			}
			_, err := fmt.Fprintf(a.Out, "kvctl %s%s\n", version, revision)
			return err
		},
	}
}
