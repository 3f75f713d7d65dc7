package ctl

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/record"
	"kvstore/internal/ctl/transfer"
	"kvstore/internal/txnform"
)

// maxTxnBytes bounds a transaction's document.
const maxTxnBytes = 32 << 20

func (a *app) txnCmd() *cobra.Command {
	var file, requestID string
	var zeroed bool
	var fence fenceFlag
	cmd := &cobra.Command{
		Use: "txn", Short: "Compare keys, then write, delete and read others, whole or not at all; given as JSON or YAML",
		Long: "Compare keys, then write, delete and read others, whole or not at all.\n\n" +
			"The document, JSON or YAML, has checks, then (also called operations) and\n" +
			"otherwise. When all checks hold, then is executed, else otherwise, at one\n" +
			"moment. Keys of one group are the fastest; keys with the same {braces} are.\n\n" +
			"It ends with 4 when a check does not hold and there is no otherwise, or when a\n" +
			"condition of the operations does not hold: then nothing was changed.\n\n" +
			"With -o raw the values that were read are printed, each on a line. A key that does\n" +
			"not exist has none: it is named on standard error, and kvctl ends with 3 although the\n" +
			"transaction was executed.",
		Example: "  kvctl txn --file transfer.yaml\n" +
			"  echo '{\"checks\":[{\"key\":\"{a}x\",\"version_match\":0}],\"then\":[{\"type\":\"PUT\",\"key\":\"{a}x\",\"value\":\"1\"}]}' | kvctl txn -o json",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := a.readTxn(file)
			if err != nil {
				return err
			}
			if requestID != "" {
				q.RequestId = requestID
			}
			if err := fence.protect(q); err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.txn(cmd.Context(), c, q, zeroed)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "-", "file with the transaction; - is standard input")
	cmd.Flags().BoolVarP(&zeroed, "null", "0", false, "end values with a zero byte instead of a newline, with -o raw")
	fence.add(cmd)
	cmd.Flags().StringVar(&requestID, "request-id", "", requestIDHelp)
	return cmd
}

// readTxn reads a document: JSON when it is JSON, else YAML.
func (a *app) readTxn(file string) (*api.TransactionRequest, error) {
	in, closeIn, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer closeIn()
	doc, err := io.ReadAll(io.LimitReader(in, maxTxnBytes+1))
	if err != nil {
		return nil, err
	}
	if len(doc) > maxTxnBytes {
		return nil, usagef("the transaction has more than %d bytes", maxTxnBytes)
	}
	form, err := txnform.Parse(doc)
	if err != nil {
		return nil, usageError{Err: err}
	}
	q, err := form.Request()
	if err != nil {
		return nil, usageError{Err: err}
	}
	return q, nil
}

func (a *app) txn(ctx context.Context, c *client.Client, q *api.TransactionRequest, zeroed bool) error {
	t := c.Txn(ctx).RequestID(q.GetRequestId())
	if f := q.GetFence(); f != nil {
		t.Fence(client.Fence{Namespace: f.GetNamespace(), Key: f.GetKey(), Revision: f.GetRevision()})
	}
	for _, check := range q.GetChecks() {
		t.If(checkOf(q, check))
	}
	for _, op := range q.GetThen() {
		t.Then(opOf(q, op))
	}
	for _, op := range q.GetOtherwise() {
		t.Else(opOf(q, op))
	}
	res, err := t.Commit()
	if err != nil {
		return err
	}
	list := q.GetThen()
	if !res.Succeeded {
		list = q.GetOtherwise()
	}
	if err := a.showTxn(list, res, zeroed); err != nil {
		return err
	}
	if !res.Succeeded && len(list) == 0 {
		return &client.Error{Code: client.CodeConditionFailed, Message: "a check does not hold; nothing was executed"}
	}
	return nil
}

func checkOf(q *api.TransactionRequest, c *api.TransactionCheck) client.Check {
	return client.Key(c.GetKey()).In(spaceOf(q, c.GetNamespace())).Is(conditionOf(c.GetCondition()))
}

func spaceOf(q *api.TransactionRequest, item string) string {
	if item == "" {
		return q.GetNamespace()
	}
	return item
}

func conditionOf(c *api.Condition) client.Condition {
	if c == nil {
		return client.Condition{}
	}
	return client.Condition{
		Version: c.VersionMatch, Revision: c.RevisionMatch, MustExist: c.GetMustExist(), MustNotExist: c.GetMustNotExist(),
		ValueEquals: c.GetValueEquals(), HasValueEquals: c.ValueEquals != nil,
		Created: c.CreatedMatch, Lease: c.GetLeaseMatch(),
	}
}

func opOf(q *api.TransactionRequest, op *api.TransactionOp) client.Op {
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		item := client.PutItem{
			ContentType: o.Put.GetContentType(), Encoding: o.Put.GetEncoding(), Checksum: o.Put.Checksum,
			TTL: time.Duration(o.Put.GetTtlSeconds()) * time.Second, Tags: o.Put.GetTags(), Metadata: o.Put.GetMetadata(),
			Condition: conditionOf(o.Put.GetCondition()), Lease: o.Put.GetLease(),
		}
		if ms := o.Put.GetExpiresAtMs(); ms != 0 {
			item.ExpiresAt = time.UnixMilli(ms)
		}
		opts := append(transfer.PutOptions(item), client.InNamespace(spaceOf(q, o.Put.GetNamespace())))
		return client.OpPut(o.Put.GetKey(), o.Put.GetValue(), opts...)
	case *api.TransactionOp_Touch:
		opts := []client.TouchOption{client.WithTTL(time.Duration(o.Touch.GetTtlSeconds()) * time.Second), client.If(conditionOf(o.Touch.GetCondition())),
			client.InNamespace(spaceOf(q, o.Touch.GetNamespace()))}
		if ms := o.Touch.GetExpiresAtMs(); ms != 0 {
			opts = append(opts, client.WithExpiry(time.UnixMilli(ms)))
		}
		if o.Touch.GetPersist() {
			opts = append(opts, client.Persist())
		}
		return client.OpTouch(o.Touch.GetKey(), opts...)
	case *api.TransactionOp_Delete:
		return client.OpDelete(o.Delete.GetKey(), client.If(conditionOf(o.Delete.GetCondition())),
			client.InNamespace(spaceOf(q, o.Delete.GetNamespace())))
	}
	if check := op.GetCheck(); check != nil {
		return client.OpCheck(checkOf(q, check))
	}
	opts := []client.GetOption{client.InNamespace(spaceOf(q, op.GetGet().GetNamespace()))}
	if op.GetGet().GetKeysOnly() {
		opts = append(opts, client.KeysOnly())
	}
	return client.OpGet(op.GetGet().GetKey(), opts...)
}

// txnView is the answer with -o json.
type txnView struct {
	Succeeded bool   `json:"succeeded"`
	Revision  uint64 `json:"revision,string"`
	Results   []any  `json:"results"`
}

type txnPut struct {
	Type string `json:"type"`
	putView
}

type txnDelete struct {
	Type string `json:"type"`
	deleteView
}

type txnCheck struct {
	Type string `json:"type"`
	Key  string `json:"key"`
}

type txnGet struct {
	Type   string       `json:"type"`
	Key    string       `json:"key"`
	Record *record.JSON `json:"record,omitempty"`
	Error  *errorView   `json:"error,omitempty"`
}

func (a *app) showTxn(list []*api.TransactionOp, res *client.TxnResult, zeroed bool) error {
	view := txnView{Succeeded: res.Succeeded, Revision: res.Revision, Results: []any{}}
	var rows [][]string
	for i, op := range list {
		one, row := viewTxnOp(op, &res.Results[i])
		view.Results, rows = append(view.Results, one), append(rows, row)
	}
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(view)
	case formatRaw:
		return a.rawTxn(list, res, zeroed)
	}
	if err := a.fields("succeeded", fmt.Sprint(res.Succeeded), "revision", revision(res.Revision)); err != nil || len(rows) == 0 {
		return err
	}
	return a.table("TYPE KEY CODE VERSION VALUE", rows)
}

// rawTxn prints the values that were read, each on a line or before a zero byte. What
// does not exist has no value: its error must not be taken for one.
func (a *app) rawTxn(list []*api.TransactionOp, res *client.TxnResult, zeroed bool) error {
	end := byte('\n')
	if zeroed {
		end = 0
	}
	var missing []error
	for i, op := range list {
		if op.GetGet() == nil {
			continue
		}
		if err := res.Results[i].Err; err != nil {
			missing = append(missing, err)
			continue
		}
		value := res.Results[i].Record.Value
		if _, err := a.Out.Write(append(value[:len(value):len(value)], end)); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	last := len(missing) - 1
	for _, err := range missing[:last] {
		a.complain(err)
	}
	return missing[last] // which the program ends with says it too
}

func viewTxnOp(op *api.TransactionOp, r *client.OpResult) (view any, row []string) {
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		return txnPut{"PUT", viewPut(o.Put.GetKey(), r.Put)}, []string{"PUT", o.Put.GetKey(), "ok", number(r.Put.Version), ""}
	case *api.TransactionOp_Touch:
		return txnPut{"TOUCH", viewPut(o.Touch.GetKey(), r.Put)}, []string{"TOUCH", o.Touch.GetKey(), "ok", number(r.Put.Version), ""}
	case *api.TransactionOp_Delete:
		code := "ok"
		if !r.Delete.Existed {
			code = string(client.CodeNotFound)
		}
		return txnDelete{"DELETE", deleteView{o.Delete.GetKey(), r.Delete.Existed, r.Delete.Revision}}, []string{"DELETE", o.Delete.GetKey(), code, "", ""}
	}
	if check := op.GetCheck(); check != nil {
		return txnCheck{"CHECK", check.GetKey()}, []string{"CHECK", check.GetKey(), "ok", "", ""}
	}
	key, keysOnly := op.GetGet().GetKey(), op.GetGet().GetKeysOnly()
	if r.Err != nil {
		e := viewError(r.Err, "")
		return txnGet{Type: "GET", Key: key, Error: &e}, []string{"GET", key, string(client.CodeOf(r.Err)), "", ""}
	}
	rec := record.From(r.Record, !keysOnly)
	return txnGet{Type: "GET", Key: key, Record: &rec}, []string{"GET", key, "ok", number(r.Record.Version), shown(&rec)}
}

// shown is a value as far as a table shows it.
func shown(rec *record.JSON) string {
	const most = 40
	if rec.Value == nil {
		return ""
	}
	text := *rec.Value
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
