package ctl

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/internal/version"
)

// newRoot builds the whole command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "kvctl",
		Short: "Read, write and look after a kvstore cluster",
		Long: "Read, write and look after a kvstore cluster.\n\n" +
			"`kvctl HOST:PORT` is short for `kvctl shell HOST:PORT`.",
		SilenceUsage: true, SilenceErrors: true, SuggestionsMinimumDistance: 2, Version: version.Full("kvctl"),
		Args: usageArgs(rootArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return a.runShell(args)
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.opts.check(); err != nil {
				return err
			}
			return checkSafetyFlags(cmd)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{Err: err} })
	root.SetVersionTemplate("{{.Version}}\n")
	a.globalFlags(root)
	root.AddCommand(
		a.putCmd(), a.getCmd(), a.existsCmd(), a.touchCmd(), a.deleteCmd(), a.listCmd(), a.historyCmd(), a.jobCmd(), a.watchCmd(), a.batchCmd(), a.txnCmd(), a.requestCmd(), a.leaseCmd(), a.electCmd(),
		a.importCmd(), a.exportCmd(), a.statusCmd(), a.clusterCmd(), a.nodeCmd(), a.balanceCmd(), a.slotsCmd(), a.digestCmd(), a.debugCmd(), a.namespaceCmd(),
		a.contextCmd(), a.versionCmd(),
		&cobra.Command{Use: "exit-codes", Short: "The codes kvctl ends with", Long: exitHelp},
	)
	if a.inShell {
		root.CompletionOptions.DisableDefaultCmd = true
	} else {
		root.AddCommand(a.shellCmd(), a.lockCmd())
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
	f.StringVarP(&o.output, "output", "o", o.output, "table, json, yaml or raw (default: what suits the command)")
	complete := func(flag string, values ...string) {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	}
	complete("output", formatTable, formatJSON, formatYAML, formatRaw)
	if a.inShell {
		return
	}
	o.Add(f)
	complete("read", "leader", "any", "nearest", "auto")
}

// check refuses options that no command accepts.
func (o *options) check() error {
	switch o.output {
	case "", formatTable, formatJSON, formatYAML, formatRaw:
	default:
		return usagef("--output %q: want table, json, yaml or raw", o.output)
	}
	if o.Timeout <= 0 {
		return usagef("--timeout %s: want more than 0", o.Timeout)
	}
	return nil
}

// safetyFlags protect a write, or bound what it changes. Given without a value, as a
// shell does with a variable that is not set, they are refused: the write would
// happen without its protection.
var safetyFlags = []string{"fence", "request-id", "lease"}

func checkSafetyFlags(cmd *cobra.Command) error {
	for _, name := range safetyFlags {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usagef("--%s is empty; is the variable set that it is from?", name)
		}
	}
	return nil
}

// usageArgs makes errors about arguments usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		if cmd.HasParent() && !cmd.HasSubCommands() { // the count alone says little
			err = fmt.Errorf("%w; usage: %s", err, cmd.UseLine())
		}
		return usageError{Err: err}
	}
}

// strictCompletion makes `completion` refuse shells that it does not know;
// cobra's own shows its help and ends with 0.
func strictCompletion(root *cobra.Command, args []string) {
	root.InitDefaultCompletionCmd(args...)
	for _, c := range root.Commands() {
		if c.Name() == "completion" && !c.Runnable() {
			c.Args, c.RunE = usageArgs(cobra.NoArgs), showHelp
		}
	}
}

// showHelp is what a command does that only has subcommands.
func showHelp(cmd *cobra.Command, _ []string) error {
	_ = cmd.Help()
	return codeError{error: errors.New("no subcommand"), code: exitUsage, silent: true}
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: usageArgs(cobra.NoArgs), RunE: showHelp}
	c.AddCommand(subs...)
	return c
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of kvctl", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			switch a.format(formatTable) {
			case formatJSON:
				return a.json(map[string]string{"version": version.String(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			case formatRaw:
				_, err := fmt.Fprintln(a.Out, version.String())
				return err
			}
			_, err := fmt.Fprintln(a.Out, version.Full("kvctl"))
			return err
		},
	}
}
