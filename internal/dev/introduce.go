package dev

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"kvstore/internal/ctl/ctxfile"
)

// contextName is the kvctl context of a development cluster.
const contextName = "dev"

// introduce tells the user what runs and what to try.
func (s *supervisor) introduce(ctx context.Context) {
	out := s.o.Out
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tPID\tHTTP\tGRPC\tPEER\tGOSSIP\tMETRICS\tROLE")
	for _, n := range s.c.nodes {
		fmt.Fprintf(w, "%s\t%d\t%s://%s\t%s\t%s\t%s\t%s\t%s\n",
			n.Name, n.PID, s.probe.scheme, n.HTTP, n.GRPC, n.Peer, n.Gossip, n.Metrics, s.probe.role(ctx, n))
	}
	_ = w.Flush() // the terminal is gone at worst
	fmt.Fprintf(out, "\nData, logs and %s: %s\n", ClusterFile, s.c.dir)
	s.writeContext()
	fmt.Fprintf(out, "\nTry:\n")
	for _, line := range s.tryLines() {
		fmt.Fprintf(out, "  %s\n", line)
	}
	stays := "the data stays"
	if s.o.Ephemeral {
		stays = "the data is deleted"
	}
	fmt.Fprintf(out, "\nReady. Ctrl-C stops all nodes; %s.\n", stays)
}

func (s *supervisor) tryLines() []string {
	kvctl := "kvctl"
	if exe, err := os.Executable(); err == nil && BuiltByGoRun(exe) {
		kvctl = "go run ./cmd/kvctl"
	}
	curl := "curl"
	if s.c.client.Enabled() {
		curl = fmt.Sprintf("curl --cacert %s --cert %s --key %s", s.c.client.CAFile, s.c.client.CertFile, s.c.client.KeyFile)
	}
	last := s.c.nodes[len(s.c.nodes)-1]
	return []string{
		kvctl + " put greeting 'Hello, world'",
		kvctl + " get greeting",
		fmt.Sprintf("%s %s://%s/api/v1/keys/greeting", curl, s.probe.scheme, last.HTTP),
	}
}

// writeContext makes kvctl work without flags. It is a help: a file that
// cannot be written is reported, nothing more.
func (s *supervisor) writeContext() {
	path, err := ctxfile.Path()
	if err == nil {
		err = ctxfile.Update(path, func(f *ctxfile.File) error {
			f.Set(contextName, s.context(), true)
			return nil
		})
	}
	if err != nil {
		fmt.Fprintf(s.o.Out, "No kvctl context was written: %v\n", err)
		return
	}
	fmt.Fprintf(s.o.Out, "kvctl uses this cluster now (context %q in %s).\n", contextName, path)
}

// forgetContext takes the context of an ephemeral cluster back: what it names,
// certificates too, is gone. One that names another cluster by now stays.
func (s *supervisor) forgetContext() {
	path, err := ctxfile.Path()
	if err != nil {
		return // then none was written
	}
	err = ctxfile.Update(path, func(f *ctxfile.File) error {
		c, err := f.Get(contextName)
		if err != nil || !slices.Equal(c.Endpoints, s.context().Endpoints) {
			return nil //nolint:nilerr // removed or replaced meanwhile
		}
		return f.Delete(contextName)
	})
	if err != nil {
		fmt.Fprintf(s.o.Out, "The kvctl context %q stays: %v\n", contextName, err)
	}
}

func (s *supervisor) context() ctxfile.Context {
	var c ctxfile.Context
	for _, n := range s.c.nodes {
		c.Endpoints = append(c.Endpoints, n.GRPC)
	}
	if s.c.client.Enabled() {
		c.TLS = &ctxfile.TLS{CAFile: s.c.client.CAFile, CertFile: s.c.client.CertFile, KeyFile: s.c.client.KeyFile, ServerName: "localhost"}
	}
	return c
}

// shellLine quotes argv for a shell.
func shellLine(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = a
		if strings.ContainsAny(a, " \t\n'\"\\$&;|<>()*?[]#~`!{}") || a == "" {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
