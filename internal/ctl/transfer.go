package ctl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kvstore/internal/ctl/progress"
	"kvstore/internal/ctl/transfer"
)

// transferFlags are those of import and export.
type transferFlags struct {
	transfer.Options
	noJournal, quiet bool
}

func (a *app) importCmd() *cobra.Command {
	dir := a.transferSub("dir DIR", "Write a directory tree: path is key, bytes are value", "import", func(ctx context.Context, arg string, o transfer.Options) (transfer.Summary, error) {
		return transfer.ImportDir(ctx, arg, o)
	})
	lines := a.transferSub("jsonl FILE", "Write records from a file of JSON lines; - is standard input", "import", a.importLines)
	for _, c := range []*cobra.Command{dir, lines} {
		c.Flags().Bool("if-absent", false, "leave keys that exist as they are")
	}
	return group("import", "Load a directory tree or JSON lines; parallel, resumable", dir, lines)
}

func (a *app) exportCmd() *cobra.Command {
	dir := a.transferSub("dir DIR", "Restore keys as a directory tree", "export", func(ctx context.Context, arg string, o transfer.Options) (transfer.Summary, error) {
		return transfer.ExportDir(ctx, arg, o)
	})
	dir.Flags().Bool("unsafe-links", false, "restore symbolic links that point out of the directory")
	lines := a.transferSub("jsonl FILE", "Write records as JSON lines; - is standard output", "export", a.exportLines)
	return group("export", "Save keys as a directory tree or JSON lines; resumable", dir, lines)
}

// transferSub is one of the four transfers.
func (a *app) transferSub(use, short, verb string, do func(context.Context, string, transfer.Options) (transfer.Summary, error)) *cobra.Command {
	var t transferFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.IfAbsent, _ = cmd.Flags().GetBool("if-absent")       // absent flags are false
			t.UnsafeLinks, _ = cmd.Flags().GetBool("unsafe-links") // likewise
			return a.transfer(cmd, verb, args[0], &t, do)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.Prefix, "prefix", "", "put before every path or key, as it is (import), or select keys and cut it from paths (export)")
	f.IntVar(&t.Parallel, "parallel", 64, "operations at once")
	f.StringVar(&t.Journal, "journal", "", "file that remembers finished items (default: one below $XDG_STATE_HOME/kvstore)")
	f.BoolVar(&t.noJournal, "no-journal", false, "remember nothing; cannot be resumed")
	f.BoolVar(&t.Resume, "resume", false, "continue a run that was cut")
	f.BoolVar(&t.Verify, "verify", false, "read everything back and compare checksums")
	f.DurationVar(&t.RetryFor, "retry-for", 2*time.Minute, "how long to try an item while the cluster does not answer")
	f.Int64Var(&t.MaxFailures, "max-failures", 1000, "stop when more items failed; 0 means never")
	f.BoolVarP(&t.quiet, "quiet", "q", false, "no progress")
	return cmd
}

func (a *app) transfer(cmd *cobra.Command, verb, arg string, t *transferFlags, do func(context.Context, string, transfer.Options) (transfer.Summary, error)) error {
	if t.Parallel < 1 || t.Parallel > transfer.MaxParallel {
		return usagef("--parallel %d: want 1 to %d", t.Parallel, transfer.MaxParallel)
	}
	c, err := a.client(cmd.Context())
	if err != nil {
		return err
	}
	o := t.Options
	o.Client, o.Namespace, o.Progress = c, a.namespace(), &progress.Progress{}
	if !t.quiet {
		o.Progress = a.progress(verb)
	}
	if err := a.journal(cmd.CommandPath(), arg, t.noJournal, &o); err != nil {
		return err
	}
	o.Progress.Start()
	sum, err := do(cmd.Context(), arg, o)
	o.Progress.Stop()
	if err != nil && sum.Items+sum.Resumed+sum.Failed == 0 {
		return err // there is nothing to sum up or to continue
	}
	if serr := a.showSummary(verb, arg, sum); serr != nil {
		return errors.Join(err, serr)
	}
	if err != nil && o.Journal != "" {
		_, _ = fmt.Fprintln(a.Err, "the same command with --resume continues")
	}
	return err
}

// journal names the journal's file: one per source, target and namespace.
func (a *app) journal(command, arg string, none bool, o *transfer.Options) error {
	if none || arg == "-" {
		if o.Resume {
			return usagef("--resume needs a journal and a file")
		}
		o.Journal = ""
		return nil
	}
	if o.Journal != "" {
		return nil
	}
	state, err := stateDir()
	if err != nil {
		return fmt.Errorf("no place for the journal: %w (name one with --journal, or --no-journal)", err)
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return err
	}
	// The endpoints belong to the name, so that a journal of one cluster is
	// not taken for another's.
	sum := sha256.Sum256([]byte(strings.Join(append([]string{command, abs, o.Namespace, o.Prefix}, a.target.Endpoints...), "\x00")))
	o.Journal = filepath.Join(state, "transfer-"+hex.EncodeToString(sum[:8])+".journal")
	return nil
}

// stateDir is kvstore below XDG_STATE_HOME, or below ~/.local/state.
func stateDir() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" || !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "kvstore"), nil
}

// progress shows work on standard error.
func (a *app) progress(label string) *progress.Progress {
	fd, ok := terminal(a.Err)
	return progress.New(a.Err, label, ok, func() int {
		w, _, err := term.GetSize(fd)
		if err != nil {
			return 80
		}
		return w
	})
}

func (a *app) importLines(ctx context.Context, name string, o transfer.Options) (transfer.Summary, error) {
	if name == "-" {
		return transfer.ImportLines(ctx, name, "", a.In, o)
	}
	f, err := os.Open(name)
	if err != nil {
		return transfer.Summary{}, usageError{Err: err}
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return transfer.Summary{}, err
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return transfer.Summary{}, err
	}
	etag := strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36)
	return transfer.ImportLines(ctx, abs, etag, f, o)
}

func (a *app) exportLines(ctx context.Context, name string, o transfer.Options) (transfer.Summary, error) {
	if name == "-" {
		return transfer.ExportLines(ctx, a.Out, o)
	}
	return transfer.ExportFile(ctx, name, o)
}

// showSummary prints what was done; on standard error where the records
// themselves go to standard output.
func (a *app) showSummary(verb, arg string, s transfer.Summary) error {
	out := a.Out
	if verb == "export" && arg == "-" {
		out = a.Err
	}
	if a.opts.output == formatJSON {
		return (&app{Streams: Streams{Out: out}}).json(s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%sed %d items, %s in %s", verb, s.Items, progress.Bytes(s.Bytes), time.Duration(s.Elapsed*float64(time.Second)).Round(time.Millisecond))
	for _, part := range []struct {
		n    int64
		text string
	}{
		{s.Resumed, "done before"}, {s.Existing, "existed"}, {s.Expired, "expired or gone"}, {s.Special, "special files left out"},
		{s.Newer, "newer than the snapshot"}, {s.Verified, "verified"}, {s.Failed, "FAILED"},
	} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %d %s", part.n, part.text)
		}
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}
