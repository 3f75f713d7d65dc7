package ctl

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/transfer"
)

// putFlags are what describes a value.
type putFlags struct {
	file, contentType, encoding, expires string
	ttl                                  time.Duration
	tags, meta                           map[string]string
	cond                                 conditionFlags
}

func (a *app) putCmd() *cobra.Command {
	var p putFlags
	cmd := &cobra.Command{
		Use: "put KEY [VALUE]", Short: "Write a value from the argument, a file or standard input",
		Example: "  kvctl put greeting hello\n  kvctl put logo --file logo.png\n  gzip -c big.json | kvctl put big --encoding gzip --if-absent",
		Args:    usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := p.options(cmd)
			if err != nil {
				return err
			}
			value, err := a.putValue(p.file, args)
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.Put(cmd.Context(), args[0], value, opts...)
			if err != nil {
				return err
			}
			return a.showPut(args[0], res)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&p.file, "file", "f", "", "read the value from this file; - is standard input")
	f.StringVar(&p.contentType, "content-type", "", "MIME type (default with --file: guessed)")
	f.StringVar(&p.encoding, "encoding", "", "compression the value already has, e.g. gzip")
	f.DurationVar(&p.ttl, "ttl", 0, "let the key expire after this long, in whole seconds")
	f.StringVar(&p.expires, "expires-at", "", "let the key expire at this time (RFC 3339)")
	f.StringToStringVar(&p.tags, "tag", nil, "tag, name=value; may be repeated")
	f.StringToStringVar(&p.meta, "meta", nil, "metadata, name=value; may be repeated")
	p.cond.add(cmd)
	return cmd
}

func (p *putFlags) options(cmd *cobra.Command) ([]client.PutOption, error) {
	item := client.PutItem{ContentType: p.contentType, Encoding: p.encoding, TTL: p.ttl, Tags: p.tags, Metadata: p.meta}
	if p.ttl < 0 || p.ttl%time.Second != 0 {
		return nil, usagef("--ttl %s: want whole seconds, 1s or more", p.ttl)
	}
	if p.expires != "" {
		if p.ttl != 0 {
			return nil, usagef("--ttl and --expires-at exclude each other")
		}
		t, err := time.Parse(time.RFC3339, p.expires)
		if err != nil {
			return nil, usagef("--expires-at %q: want a time as in 2030-01-31T12:00:00Z", p.expires)
		}
		item.ExpiresAt = t
	}
	if p.file != "" && p.file != "-" && !cmd.Flags().Changed("content-type") {
		item.ContentType = transfer.ContentType(p.file, nil)
	}
	cond, err := p.cond.condition(cmd)
	item.Condition = cond
	return transfer.PutOptions(item), err
}

// putValue reads the value, at most one byte more than one may have.
func (a *app) putValue(file string, args []string) ([]byte, error) {
	if len(args) == 2 {
		if file != "" {
			return nil, usagef("a value and --file exclude each other")
		}
		return []byte(args[1]), nil
	}
	if file == "" || file == "-" {
		return readValue(a.In, -1)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	size := int64(-1)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return readValue(f, size)
}

// readValue reads a stream that must fit into a value; size is -1 when it is
// not known before.
func readValue(in io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(in, transfer.MaxValueBytes+1))
	if err != nil {
		return nil, err
	}
	if n <= transfer.MaxValueBytes {
		return b.Bytes(), nil
	}
	actual := "more"
	if size > transfer.MaxValueBytes {
		actual = strconv.FormatInt(size, 10)
	}
	return nil, &client.Error{
		Code: client.CodeValueTooLarge, Message: "value is too large",
		Details: map[string]string{"limit": strconv.Itoa(transfer.MaxValueBytes), "actual": actual},
	}
}

// putView is the answer to a write with -o json.
type putView struct {
	Key       string `json:"key"`
	Version   uint64 `json:"version"`
	Revision  uint64 `json:"revision,string"`
	CreatedAt string `json:"created_at,omitempty"`
	UpdatedAt string `json:"updated_at,omitempty"`
	ExpiresAt string `json:"expires_at,omitempty"`
	Checksum  uint32 `json:"checksum"`
}

func viewPut(key string, r client.PutResult) putView {
	return putView{key, r.Version, r.Revision, when(r.CreatedAt), when(r.UpdatedAt), when(r.ExpiresAt), r.Checksum}
}

func (a *app) showPut(key string, r client.PutResult) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(viewPut(key, r))
	case formatRaw:
		_, err := fmt.Fprintln(a.Out, r.Revision)
		return err
	}
	return a.table("KEY VERSION REVISION EXPIRES", [][]string{{key, number(r.Version), number(r.Revision), when(r.ExpiresAt)}})
}

// conditionFlags are the conditions of a write (--if-...).
type conditionFlags struct {
	version, revision uint64
	exists, absent    bool
	value             string
}

func (c *conditionFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint64Var(&c.version, "if-version", 0, "only if the key has this version; 0: only if it does not exist")
	f.Uint64Var(&c.revision, "if-revision", 0, "only if the key has this revision")
	f.BoolVar(&c.exists, "if-exists", false, "only if the key exists")
	f.BoolVar(&c.absent, "if-absent", false, "only if the key does not exist")
	f.StringVar(&c.value, "if-value", "", "only if the key has this value; @FILE reads it from a file")
}

func (c *conditionFlags) condition(cmd *cobra.Command) (client.Condition, error) {
	out := client.Condition{MustExist: c.exists, MustNotExist: c.absent}
	if cmd.Flags().Changed("if-version") {
		out.Version = &c.version
	}
	if cmd.Flags().Changed("if-revision") {
		out.Revision = &c.revision
	}
	if !cmd.Flags().Changed("if-value") {
		return out, nil
	}
	out.HasValueEquals, out.ValueEquals = true, []byte(c.value)
	if name, ok := strings.CutPrefix(c.value, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return out, usagef("--if-value: %w", err)
		}
		out.ValueEquals = b
	}
	return out, nil
}
