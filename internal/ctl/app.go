package ctl

import (
	"context"

	"kvstore/client"
	"kvstore/internal/ctl/target"
)

// options are the flags of every command.
type options struct {
	target.Flags
	output string
}

// app is one run of the program.
type app struct {
	Streams
	// base is the program's context; a command's also ends with an interrupt.
	base context.Context //nolint:containedctx // the life of the program
	opts options
	// inherited are the options that a shell's commands begin with.
	inherited options
	target    target.Target
	conn      *client.Client
	inShell   bool
}

// looksLikeEndpoint says whether a first argument means `kvctl HOST:PORT`.
func looksLikeEndpoint(s string) bool {
	_, _, err := target.ParseEndpoint(s)
	return err == nil
}

// client connects on first use.
func (a *app) client(ctx context.Context) (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	c, err := client.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.conn = c
	return c, nil
}

// config is what the SDK needs to reach the target.
func (a *app) config() (client.Config, error) {
	cfg, t, err := a.opts.Config("kvctl")
	a.target = t
	return cfg, err
}

func (a *app) close() {
	if a.conn != nil {
		_ = a.conn.Close() // returns nil
	}
}

// namespace is the one commands work in.
func (a *app) namespace() string {
	if a.target.Namespace == "" {
		return "default"
	}
	return a.target.Namespace
}
