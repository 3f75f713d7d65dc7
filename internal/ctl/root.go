package ctl

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const defaultTimeout = 10 * time.Second

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
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
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
	if o.timeout == 0 {
		o.timeout = defaultTimeout
	}
	if o.read == "" {
		o.read = "leader"
	}
	f.StringVarP(&o.output, "output", "o", o.output, "table, json or raw (default: what suits the command)")
	if a.inShell {
		return
	}
	f.StringSliceVarP(&o.endpoints, "endpoints", "e", nil, "nodes to connect to: host:port, grpc://, grpcs://, http:// or https:// (env "+envEndpoints+")")
	f.StringVar(&o.context, "context", "", "named cluster of the contexts file (env "+envContext+")")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the keys (default \"default\", or the context's)")
	f.DurationVar(&o.timeout, "timeout", o.timeout, "how long one operation may take")
	f.StringVar(&o.read, "read", o.read, "replicas that serve reads: leader, any or nearest; all are linearizable")
	f.StringVar(&o.zone, "zone", "", "where this program runs, for --read nearest")
	f.BoolVar(&o.gateway, "gateway", false, "use only the given endpoints, for clusters behind a load balancer")
	f.BoolVar(&o.tls, "tls", false, "use TLS")
	f.StringVar(&o.files.CAFile, "ca-file", "", "certificates that verify the nodes, PEM (default: the system's)")
	f.StringVar(&o.files.CertFile, "cert-file", "", "certificate of this client, PEM")
	f.StringVar(&o.files.KeyFile, "key-file", "", "key of this client, PEM")
	f.StringVar(&o.files.ServerName, "server-name", "", "name to expect in the nodes' certificates")
	f.BoolVar(&o.insecureTok, "plaintext-token", false, "send the token of "+envToken+" also without TLS")
}

// check refuses options that no command accepts.
func (o *options) check() error {
	switch o.output {
	case "", formatTable, formatJSON, formatRaw:
	default:
		return usagef("--output %q: want table, json or raw", o.output)
	}
	if o.timeout <= 0 {
		return usagef("--timeout %s: want more than 0", o.timeout)
	}
	return nil
}

// usageArgs makes errors about arguments usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
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
