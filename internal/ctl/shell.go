package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/lineedit"
)

const shellHelp = `Every kvctl command works here, without "kvctl" and the connection flags:

  put KEY VALUE [--ttl 1h] [--if-absent] ...   get KEY   exists KEY   delete KEY
  touch KEY --ttl 1h
  list [PREFIX]   status   digest   namespace ...   import ...   export ...

and these belong to the shell:

  use [NAMESPACE]   change the namespace, or say which one it is
  help [COMMAND]    this text, or a command's
  exit              leave (also quit and Ctrl-D)

Words are split as in a shell: 'as it is', "with \n \t \" \\", back\slash.
`

// maxShellLine bounds one line of piped input.
const maxShellLine = 32 << 20

func (a *app) shellCmd() *cobra.Command {
	return &cobra.Command{
		Use: "shell [HOST:PORT]", Short: "Read commands line by line, with history; also from a pipe",
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return a.runShell(args) },
	}
}

// runShell connects and executes lines until they end. From a pipe, the exit
// code is that of the first line that failed; the rest is still executed. The
// context of the program, not of this command, is used: an interrupt ends one
// line's command.
func (a *app) runShell(args []string) error {
	ctx := a.base
	if a.inShell {
		return usagef("this is a shell already")
	}
	if len(args) == 1 {
		a.opts.Endpoints = args
	}
	if _, err := a.client(ctx); err != nil {
		return err
	}
	a.inShell, a.inherited = true, a.opts
	if fd, ok := terminal(a.In); ok {
		return a.interactive(ctx, fd)
	}
	return a.piped(ctx)
}

func (a *app) piped(ctx context.Context) error {
	in := bufio.NewScanner(a.In)
	in.Buffer(make([]byte, 64<<10), maxShellLine)
	a.In = strings.NewReader("") // commands must not read the script as their value
	first := exitOK
	for in.Scan() && ctx.Err() == nil {
		code, leave := a.line(ctx, in.Text())
		if first == exitOK {
			first = code
		}
		if leave {
			break
		}
	}
	if err := in.Err(); err != nil {
		return usageError{Err: err}
	}
	if first != exitOK {
		return codeError{error: errors.New("a line failed"), code: first, silent: true}
	}
	return nil
}

// line executes one line.
func (a *app) line(ctx context.Context, text string) (code int, leave bool) {
	words, err := lineedit.Split(text)
	if err != nil {
		a.report(ctx, usageError{Err: err})
		return exitUsage, false
	}
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return exitOK, false
	}
	switch words[0] {
	case "exit", "quit":
		return exitOK, true
	case "use":
		return a.use(ctx, words[1:]), false
	case "help", "?":
		if len(words) == 1 {
			_, _ = io.WriteString(a.Out, shellHelp)
			return exitOK, false
		}
	}
	return a.execute(ctx, words), false
}

// use changes the namespace: a new connection with the same target.
func (a *app) use(ctx context.Context, words []string) int {
	if len(words) > 1 {
		a.report(ctx, usagef("use takes one namespace"))
		return exitUsage
	}
	if len(words) == 1 {
		if err := a.changeNamespace(ctx, words[0]); err != nil {
			a.report(ctx, err)
			return exitCode(ctx, err)
		}
	}
	_, _ = fmt.Fprintln(a.Out, a.namespace())
	return exitOK
}

func (a *app) changeNamespace(ctx context.Context, name string) error {
	if _, err := a.conn.DescribeNamespace(ctx, name); err != nil {
		return err
	}
	a.opts = a.inherited
	a.opts.Namespace = name
	cfg, err := a.config()
	if err != nil {
		return err
	}
	c, err := client.New(ctx, cfg)
	if err != nil {
		return err
	}
	a.close()
	a.conn, a.inherited = c, a.opts
	return nil
}

// interactive edits lines on a terminal. Ctrl-C ends a running command; while
// a line is edited it empties the line.
func (a *app) interactive(ctx context.Context, fd int) error {
	ed := lineedit.Open(fd, a.In, a.Out, historyFile())
	ed.Complete = func(line string) []string { return a.completeLine(ctx, line) }
	_, _ = fmt.Fprintf(a.Out, "connected to %s; help shows the commands\n", strings.Join(a.target.Endpoints, ", "))
	for {
		text, err := ed.Line(ctx, a.prompt())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, leave := a.line(ctx, text); leave {
			return nil
		}
	}
}

// historyFile is where lines are kept; empty when there is no home.
func historyFile() string {
	dir, err := stateDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "kvctl_history")
}

func (a *app) prompt() string { return a.target.Endpoints[0] + "/" + a.namespace() + "> " }

// completeLine offers commands for the first word, keys after a verb on keys.
func (a *app) completeLine(ctx context.Context, line string) []string {
	words := strings.Fields(line)
	if len(words) == 0 || len(words) == 1 && !strings.HasSuffix(line, " ") {
		var out []string
		for _, c := range newRoot(a).Commands() {
			if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), strings.Join(words, "")) {
				out = append(out, c.Name()+" ")
			}
		}
		return out
	}
	typed := ""
	if !strings.HasSuffix(line, " ") {
		typed = words[len(words)-1]
		words = words[:len(words)-1]
	}
	if len(words) != 1 {
		return nil
	}
	switch words[0] {
	case "get", "put", "exists", "delete", "list":
	default:
		return nil
	}
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	keys, _ := a.completeKeys(cmd, nil, typed)
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		if lineedit.Plain(k) {
			out = append(out, words[0]+" "+k)
		}
	}
	return out
}
