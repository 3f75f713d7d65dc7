package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/internal/ctl/ctxfile"
	"kvstore/internal/ctl/target"
)

// contextView is a context with -o json.
type contextView struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	ctxfile.Context
}

func (a *app) contextCmd() *cobra.Command {
	one := usageArgs(cobra.ExactArgs(1))
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List contexts", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return readContexts(func(f *ctxfile.File) error { return a.showContexts(f, f.Names()) })
		}}
	use := &cobra.Command{Use: "use NAME", Short: "Make a context the current one", Args: one, ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return changeContexts(func(f *ctxfile.File) error { return f.Use(args[0]) })
		}}
	show := &cobra.Command{Use: "show [NAME]", Short: "Show a context, by default the current one", Args: usageArgs(cobra.MaximumNArgs(1)), ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return readContexts(func(f *ctxfile.File) error {
				name := f.Current
				if len(args) == 1 {
					name = args[0]
				}
				if _, err := f.Get(name); err != nil {
					return err
				}
				return a.showContexts(f, []string{name})
			})
		}}
	var makeCurrent bool
	set := &cobra.Command{Use: "set NAME --endpoints HOST:PORT,...", Short: "Add or replace a context from --endpoints, --namespace, --token-file and the TLS flags", Args: one,
		RunE: func(_ *cobra.Command, args []string) error { return a.setContext(args[0], makeCurrent) }}
	set.Flags().BoolVar(&makeCurrent, "use", false, "make it the current one")
	remove := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Remove a context", Args: one, ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return changeContexts(func(f *ctxfile.File) error { return f.Delete(args[0]) })
		}}
	return group("context", "Named clusters: list, use, show, set, delete", list, use, show, set, remove)
}

func (a *app) setContext(name string, use bool) error {
	o := a.opts
	if len(o.Endpoints) == 0 {
		return usagef("context set: --endpoints is missing")
	}
	for _, e := range o.Endpoints {
		if _, _, err := target.ParseEndpoint(e); err != nil {
			return usageError{Err: err}
		}
	}
	c := ctxfile.Context{Endpoints: o.Endpoints, Namespace: o.Namespace, TokenFile: o.TokenFile}
	if o.TLS || o.Files != (ctxfile.TLS{}) {
		c.TLS = &o.Files
	}
	return changeContexts(func(f *ctxfile.File) error {
		f.Set(name, c, use)
		return nil
	})
}

func readContexts(read func(*ctxfile.File) error) error {
	path, err := ctxfile.Path()
	if err != nil {
		return err
	}
	f, err := ctxfile.Load(path)
	if err != nil {
		return err
	}
	return read(f)
}

func changeContexts(change func(*ctxfile.File) error) error {
	path, err := ctxfile.Path()
	if err != nil {
		return err
	}
	return ctxfile.Update(path, change)
}

func (a *app) showContexts(f *ctxfile.File, names []string) error {
	var rows [][]string
	views := a.items(a.Out)
	for _, n := range names {
		c := f.Contexts[n]
		switch a.format(formatTable) {
		case formatJSON:
			if err := views.add(contextView{n, n == f.Current, c}); err != nil {
				return err
			}
		case formatRaw:
			if _, err := fmt.Fprintln(a.Out, n); err != nil {
				return err
			}
		default:
			mark, tls := "", "off"
			if n == f.Current {
				mark = "*"
			}
			if c.TLS != nil {
				tls = "on"
			}
			rows = append(rows, []string{mark, n, strings.Join(c.Endpoints, ","), tls, c.Namespace})
		}
	}
	switch a.format(formatTable) {
	case formatJSON:
		return views.end()
	case formatRaw:
		return nil
	}
	return a.table("CURRENT NAME ENDPOINTS TLS NAMESPACE", rows)
}

func completeContexts(_ *cobra.Command, args []string, _ string) (names []string, d cobra.ShellCompDirective) {
	if len(args) == 0 {
		_ = readContexts(func(f *ctxfile.File) error { // nothing to offer without a file
			names = f.Names()
			return nil
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
