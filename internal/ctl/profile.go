package ctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/progress"
	"kvstore/internal/profiling"
)

// allNodes is the value of --node that means every node.
const allNodes = "all"

// profileFlags are those of `debug profile`.
type profileFlags struct {
	node    string
	kind    string
	seconds int
	file    string
}

// profileView is the answer of `debug profile` with -o json.
type profileView struct {
	Type   string            `json:"type"`
	Nodes  []nodeProfileView `json:"nodes"`
	Merged string            `json:"merged,omitempty"`
	// Command shows the profile.
	Command string `json:"command,omitempty"`
}

type nodeProfileView struct {
	Node       string `json:"node"`
	File       string `json:"file,omitempty"`
	Bytes      uint64 `json:"bytes,omitempty"`
	RecordedMS int64  `json:"recorded_ms,omitempty"`
	Cut        bool   `json:"cut,omitempty"`
	Error      string `json:"error,omitempty"`
}

func (a *app) debugCmd() *cobra.Command {
	return group("debug", "Look into nodes: profile", a.profileCmd())
}

func (a *app) profileCmd() *cobra.Command {
	var f profileFlags
	cmd := &cobra.Command{
		Use: "profile", Short: "Record profiles or execution traces of nodes", Args: usageArgs(cobra.NoArgs),
		Long: "Record profiles or execution traces of nodes, all at the same time.\n\n" +
			"cpu, mutex, block and trace record for --seconds; heap, allocs and goroutine are of one moment.\n" +
			"Each node's goes into a file of its own; profiles of all nodes are also merged into --file,\n" +
			"with each sample labeled node=NAME (go tool pprof -tagfocus node=NAME).",
		Example: "  kvctl debug profile\n  kvctl debug profile --node n1 --type heap --file heap.pb.gz\n  kvctl debug profile --node n1 --type trace --seconds 2",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.profile(ctx, c, f)
		}),
	}
	cmd.Flags().StringVar(&f.node, "node", allNodes, "name, id or gRPC address of a node, or "+allNodes)
	cmd.Flags().StringVar(&f.kind, "type", profiling.CPU, strings.Join(profiling.Types, ", "))
	cmd.Flags().IntVar(&f.seconds, "seconds", int(profiling.DefaultDuration.Seconds()), fmt.Sprintf("how long to record, 1 to %.0f", profiling.MaxDuration.Seconds()))
	cmd.Flags().StringVar(&f.file, "file", "", "file to write; with all nodes NAME is put before its ending for each (default TYPE.pb.gz, or trace.out)")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(profiling.Types, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

func (f *profileFlags) check() error {
	if !slices.Contains(profiling.Types, f.kind) {
		return usagef("--type %q: want one of %s", f.kind, strings.Join(profiling.Types, ", "))
	}
	if most := int(profiling.MaxDuration.Seconds()); f.seconds < 1 || f.seconds > most {
		return usagef("--seconds %d: want 1 to %d", f.seconds, most)
	}
	if f.file == "" {
		f.file = f.kind + ".pb.gz"
		if f.kind == profiling.Trace {
			f.file = "trace.out"
		}
	}
	return nil
}

// profile asks the nodes, writes the files and says how to look at them.
func (a *app) profile(ctx context.Context, c *client.Client, f profileFlags) error {
	nodes, err := profileNodes(ctx, c, f.node)
	if err != nil {
		return err
	}
	if profiling.Lasting(f.kind) {
		_, _ = fmt.Fprintf(a.Err, "recording %s of %d nodes for %d s\n", f.kind, len(nodes), f.seconds)
	}
	v := profileView{Type: f.kind, Nodes: make([]nodeProfileView, len(nodes))}
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { v.Nodes[i], errs[i] = f.record(ctx, c, n, len(nodes) > 1) })
	}
	wg.Wait()
	files := v.files()
	if len(files) == 0 {
		return errors.Join(errs...)
	}
	look := files
	if len(nodes) > 1 && f.kind != profiling.Trace {
		if err := mergeProfiles(f.file, v.Nodes); err != nil {
			return err
		}
		v.Merged, look = f.file, []string{f.file}
	}
	v.Command = lookCommand(f.kind, look[0])
	if err := a.showProfile(v); err != nil {
		return err
	}
	if len(files) < len(nodes) {
		return codeError{error: fmt.Errorf("%d of %d nodes gave no profile", len(nodes)-len(files), len(nodes)), code: exitPartial}
	}
	return nil
}

// profileNodes are those to ask, in the order of their names.
func profileNodes(ctx context.Context, c *client.Client, name string) ([]*api.NodeInfo, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(nodes, func(x, y *api.NodeInfo) int { return cmp.Compare(x.GetName(), y.GetName()) })
	if name == allNodes {
		return nodes, nil
	}
	var names []string
	for _, n := range nodes {
		if name == n.GetName() || name == n.GetId() || name == n.GetGrpc() {
			return []*api.NodeInfo{n}, nil
		}
		names = append(names, n.GetName())
	}
	return nil, codeError{error: fmt.Errorf("no node %q; there are %s", name, strings.Join(names, ", ")), code: exitNotFound}
}

// record writes one node's profile into its file; nothing is left of one that
// failed.
func (f *profileFlags) record(ctx context.Context, c *client.Client, n *api.NodeInfo, many bool) (nodeProfileView, error) {
	v := nodeProfileView{Node: n.GetName()}
	path := f.file
	if many {
		path = nameFile(f.file, n.GetName())
	}
	info, err := writeProfile(path, func(w *bufio.Writer) (client.ProfileInfo, error) {
		return c.Profile(ctx, n.GetId(), f.kind, time.Duration(f.seconds)*time.Second, w)
	})
	if err != nil {
		v.Error = plain(err)
		return v, fmt.Errorf("node %s: %w", n.GetName(), err)
	}
	v.File, v.Bytes, v.RecordedMS, v.Cut = path, info.Size, info.Took.Milliseconds(), info.Cut
	return v, nil
}

// writeProfile writes beside path and renames, so that a file is whole.
func writeProfile(path string, write func(*bufio.Writer) (client.ProfileInfo, error)) (info client.ProfileInfo, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".kvctl-profile-*")
	if err != nil {
		return info, fmt.Errorf("file of the profile: %w", err)
	}
	w := bufio.NewWriter(file)
	info, err = write(w)
	if err = errors.Join(err, w.Flush(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return info, errors.Join(err, os.Remove(file.Name()))
	}
	return info, nil
}

// nameFile puts a node's name before a file's endings.
func nameFile(path, node string) string {
	dir, base := filepath.Split(path)
	stem, endings, found := strings.Cut(base, ".")
	if found {
		endings = "." + endings
	}
	return dir + stem + "-" + node + endings
}

func lookCommand(kind, file string) string {
	if kind == profiling.Trace {
		return "go tool trace " + file
	}
	return "go tool pprof -http=: " + file
}

func (v *profileView) files() (out []string) {
	for _, n := range v.Nodes {
		if n.File != "" {
			out = append(out, n.File)
		}
	}
	return out
}

func (a *app) showProfile(v profileView) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(v)
	case formatRaw:
		files := v.files()
		if v.Merged != "" {
			files = append(files, v.Merged)
		}
		_, err := fmt.Fprintln(a.Out, strings.Join(files, "\n"))
		return err
	}
	var rows [][]string
	for _, n := range v.Nodes {
		note := n.Error
		if n.Cut {
			note = "ended early: large enough"
		}
		recorded := ""
		if profiling.Lasting(v.Type) && n.File != "" {
			recorded = (time.Duration(n.RecordedMS) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		rows = append(rows, []string{n.Node, n.File, progress.Bytes(int64(n.Bytes)), recorded, note})
	}
	if v.Merged != "" {
		rows = append(rows, []string{allNodes, v.Merged, "", "", ""})
	}
	if err := a.table("NODE FILE SIZE RECORDED NOTE", rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.Out, "\nlook at it with\n  %s\n", v.Command)
	return err
}
