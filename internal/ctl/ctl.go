// Package ctl is the command line tool kvctl: one file per command, all over
// the Go SDK. Run is what main calls; `kvctl shell` runs the same commands
// line by line over one connection.
package ctl

import (
	"context"
	"io"
	"os"
	"os/signal"

	"golang.org/x/term"

	"kvstore/internal/ctl/target"
)

// Streams are the program's standard files.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run executes one command line (without the program's name) and returns the
// exit code, one of those in `kvctl help exit-codes`.
func Run(ctx context.Context, args []string, s Streams) int {
	a := &app{Streams: s, base: ctx, inherited: options{Flags: target.Default()}}
	defer a.close()
	return a.execute(ctx, args)
}

// execute runs one command line; the shell calls it once per line. An
// interrupt ends it.
func (a *app) execute(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	a.opts = a.inherited
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	strictCompletion(root, args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		a.report(ctx, err)
	}
	return exitCode(ctx, err)
}

// terminal returns the terminal behind a stream.
func terminal(stream any) (fd int, ok bool) {
	f, isFile := stream.(*os.File)
	if !isFile {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}
