package ctl

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/transfer"
	"kvstore/internal/txnform"
)

// putFlags are what describes a value.
type putFlags struct {
	file, contentType, encoding, lease string
	expires                            expiryFlags
	fence                              fenceFlag
	tags, meta                         map[string]string
	cond                               conditionFlags
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
	p.expires.add(cmd)
	f.StringToStringVar(&p.tags, "tag", nil, "tag, name=value; may be repeated")
	f.StringToStringVar(&p.meta, "meta", nil, "metadata, name=value; may be repeated")
	f.StringVar(&p.lease, "lease", "", "attach the key to this lease: it is deleted when that ends")
	p.fence.add(cmd)
	p.cond.add(cmd)
	p.cond.addRequestID(cmd)
	return cmd
}

func (p *putFlags) options(cmd *cobra.Command) ([]client.PutOption, error) {
	ttl, at, err := p.expires.expiry(cmd)
	if err != nil {
		return nil, err
	}
	item := client.PutItem{ContentType: p.contentType, Encoding: p.encoding, TTL: ttl, ExpiresAt: at, Tags: p.tags, Metadata: p.meta}
	if p.file != "" && p.file != "-" && !cmd.Flags().Changed("content-type") {
		item.ContentType = transfer.ContentType(p.file, nil)
	}
	cond, err := p.cond.condition(cmd)
	if err != nil {
		return nil, err
	}
	item.Condition, item.Lease = cond, p.lease
	fence, err := p.fence.options()
	opts := append(transfer.PutOptions(item), client.WithRequestID(p.cond.requestID))
	for _, o := range fence {
		opts = append(opts, o)
	}
	return opts, err
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
		return nil, usageError{Err: err}
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

// fenceFlag is --fence of writes.
type fenceFlag struct{ text string }

func (f *fenceFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.text, "fence", "", "only while this lock is held: NAMESPACE/KEY@REVISION, the key percent-encoded ("+envLockFence+" of kvctl lock)")
}

func (f *fenceFlag) options() ([]client.FencedOption, error) {
	if f.text == "" {
		return nil, nil
	}
	fence, err := client.ParseFence(f.text)
	if err != nil {
		return nil, usagef("--fence: %w", err)
	}
	return []client.FencedOption{client.WithFence(fence)}, nil
}

// protect gives a transaction the fence, which its document may have too.
func (f *fenceFlag) protect(q *api.TransactionRequest) error {
	if f.text == "" {
		return nil
	}
	fence, problem := txnform.ParseFence(f.text)
	switch {
	case problem != "":
		return usagef("--fence %q %s", f.text, problem)
	case q.Fence != nil && !proto.Equal(q.Fence, fence):
		return usagef("--fence differs from the fence of the document")
	}
	q.Fence = fence
	return nil
}

// conditionFlags are the conditions of a write (--if-...).
type conditionFlags struct {
	version, revision uint64
	exists, absent    bool
	value             string
	// requestID names the write.
	requestID string
}

func (c *conditionFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint64Var(&c.version, "if-version", 0, "only if the key has this version; 0: only if it does not exist")
	f.Uint64Var(&c.revision, "if-revision", 0, "only if the key has this revision")
	f.BoolVar(&c.exists, "if-exists", false, "only if the key exists")
	f.BoolVar(&c.absent, "if-absent", false, "only if the key does not exist")
	f.StringVar(&c.value, "if-value", "", "only if the key has this value; @FILE reads it from a file")
}

// addRequestID adds --request-id, which a touch does not have.
func (c *conditionFlags) addRequestID(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.requestID, "request-id", "", requestIDHelp)
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
