package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

const (
	// batchItems and batchBytes bound one request; longer input becomes
	// several, except with --atomic.
	batchItems = 1000
	batchBytes = 4 << 20
	// atomicBytes bounds what --atomic keeps in memory.
	atomicBytes = 20 << 20
)

// batchFlags are the flags of all batch commands.
type batchFlags struct {
	file   string
	atomic bool
}

// outcome is one item's result, in the order of the input.
type outcome struct {
	key   string
	view  any
	cells []string
	err   error
}

func (a *app) batchCmd() *cobra.Command {
	return group("batch", "Write, read or delete many keys, given as JSON lines",
		a.batchSub("put", "Write records: {\"key\":..., \"value\":... or \"value_base64\":..., \"ttl_seconds\":..., \"if_version\":...}", "VERSION REVISION", batchPut),
		a.batchSub("get", "Read keys: one per line, bare, as a JSON string, or {\"key\":...}", "VERSION SIZE", batchGet),
		a.batchSub("delete", "Delete keys: one per line, or {\"key\":..., \"if_version\":...}", "EXISTED REVISION", batchDelete),
	)
}

type batchVerb func(ctx context.Context, c *client.Client, items []record.JSON, atomic bool) ([]outcome, error)

func (a *app) batchSub(verb, short, headers string, do batchVerb) *cobra.Command {
	var b batchFlags
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, closeIn, err := a.open(b.file)
			if err != nil {
				return err
			}
			defer closeIn()
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			out := &batchOut{app: a, views: a.items(a.Out), headers: "KEY CODE " + headers, reads: verb == "get"}
			err = a.batch(cmd.Context(), c, verb, record.NewLines(in), b.atomic, do, out)
			return errors.Join(err, out.finish())
		},
	}
	cmd.Flags().StringVarP(&b.file, "file", "f", "-", "file of JSON lines; - is standard input")
	if verb != "get" {
		cmd.Flags().BoolVar(&b.atomic, "atomic", false, "all items or none, whatever their keys")
	}
	return cmd
}

// open opens a file, - for standard input.
func (a *app) open(name string) (io.Reader, func(), error) {
	if name == "-" || name == "" {
		return a.In, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, usageError{Err: err}
	}
	return f, func() { _ = f.Close() }, nil
}

// batch sends the lines in requests of bounded size.
func (a *app) batch(ctx context.Context, c *client.Client, verb string, lines *record.Lines, atomic bool, do batchVerb, out *batchOut) error {
	parse := record.ParseKey
	if verb == "put" {
		parse = parsePut
	}
	maxItems, maxBytes := batchItems, batchBytes
	if atomic {
		maxItems, maxBytes = 1<<30, atomicBytes
	}
	for {
		items, err := nextItems(lines, parse, maxItems, maxBytes)
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		if atomic && !ended {
			return usagef("--atomic: more than %d bytes of input", maxBytes)
		}
		if len(items) > 0 {
			results, err := do(ctx, c, items, atomic)
			if err != nil {
				return err
			}
			if err := out.add(results); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// parsePut reads a line that can be written.
func parsePut(line []byte) (record.JSON, error) {
	j, err := record.Parse(line)
	if err == nil {
		_, err = j.Put()
	}
	return j, err
}

// nextItems parses lines up to either bound; io.EOF comes with the last ones.
func nextItems(lines *record.Lines, parse func([]byte) (record.JSON, error), maxItems, maxBytes int) ([]record.JSON, error) {
	var items []record.JSON
	for size := 0; len(items) < maxItems && size < maxBytes; {
		line, err := lines.Next()
		if err != nil {
			return items, err
		}
		j, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", lines.Number(), err)
		}
		items, size = append(items, j), size+len(line)
	}
	return items, nil
}

func batchPut(ctx context.Context, c *client.Client, lines []record.JSON, atomic bool) ([]outcome, error) {
	items := make([]client.PutItem, len(lines))
	for i, j := range lines {
		item, err := j.Put()
		if err != nil {
			return nil, err
		}
		items[i] = item
	}
	results, err := c.BatchPut(ctx, items, atomicOption(atomic)...)
	if whole(err, len(results), len(items)) {
		return nil, err
	}
	out := make([]outcome, len(items))
	for i, r := range results {
		out[i] = outcome{lines[i].Key, viewPut(lines[i].Key, r), []string{number(r.Version), number(r.Revision)}, r.Err}
	}
	return out, nil
}

func batchGet(ctx context.Context, c *client.Client, lines []record.JSON, _ bool) ([]outcome, error) {
	keys := make([]string, len(lines))
	for i, j := range lines {
		keys[i] = j.Key
	}
	results, err := c.BatchGet(ctx, keys)
	if whole(err, len(results), len(keys)) {
		return nil, err
	}
	out := make([]outcome, len(keys))
	for i, r := range results {
		out[i] = outcome{keys[i], record.From(r.Record, true), []string{number(r.Record.Version), number(r.Record.Size)}, r.Err}
	}
	return out, nil
}

func batchDelete(ctx context.Context, c *client.Client, lines []record.JSON, atomic bool) ([]outcome, error) {
	items := make([]client.DeleteItem, len(lines))
	for i, j := range lines {
		cond, err := j.Condition()
		if err != nil {
			return nil, err
		}
		items[i] = client.DeleteItem{Key: j.Key, Condition: cond}
	}
	results, err := c.BatchDelete(ctx, items, atomicOption(atomic)...)
	if whole(err, len(results), len(items)) {
		return nil, err
	}
	out := make([]outcome, len(items))
	for i, r := range results {
		out[i] = outcome{lines[i].Key, deleteView{lines[i].Key, r.Existed, r.Revision}, []string{fmt.Sprint(r.Existed), revision(r.Revision)}, r.Err}
	}
	return out, nil
}

// whole says whether a request failed as a whole: there are no results by
// item.
func whole(err error, results, items int) bool {
	var perItem *client.BatchError
	return err != nil && (results != items || !errors.As(err, &perItem))
}

func atomicOption(atomic bool) []client.BatchWriteOption {
	if atomic {
		return []client.BatchWriteOption{client.Atomic()}
	}
	return nil
}
