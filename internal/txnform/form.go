// Package txnform reads transactions as people write them, in JSON or YAML
// (S3.9): the body of the REST route and the file of kvctl have this form.
package txnform

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Form is one transaction. Operations is another name of Then, for transactions
// without checks.
type Form struct {
	Namespace string  `json:"namespace"`
	RequestID *string `json:"request_id"`
	// Fence is NAMESPACE/KEY@REVISION.
	Fence      *string `json:"fence"`
	Operations []Item  `json:"operations"`
	Checks     []Check `json:"checks"`
	Then       []Item  `json:"then"`
	Otherwise  []Item  `json:"otherwise"`

	// root is the document where it was YAML.
	root *yaml.Node
}

// Item is an operation. Type is PUT, DELETE, TOUCH, GET or CHECK, in any case.
type Item struct {
	Type        string            `json:"type"`
	Namespace   string            `json:"namespace"`
	Key         string            `json:"key"`
	Value       *string           `json:"value"`
	ValueBase64 *string           `json:"value_base64"`
	ContentType string            `json:"content_type"`
	Encoding    string            `json:"encoding"`
	Checksum    string            `json:"checksum"`
	TTLSeconds  int64             `json:"ttl_seconds"`
	ExpiresAt   string            `json:"expires_at"`
	Persist     bool              `json:"persist"`
	Lease       *string           `json:"lease"`
	Tags        map[string]string `json:"tags"`
	Metadata    map[string]string `json:"metadata"`
	KeysOnly    bool              `json:"keys_only"`
	// Conditions and Condition are two names of the same.
	Conditions *Conditions `json:"conditions"`
	Condition  *Conditions `json:"condition"`
}

// Check compares one key.
type Check struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
	Conditions
}

// Conditions must all hold. Those named if_... are other names, as S3.9 has them.
type Conditions struct {
	VersionMatch      *uint64 `json:"version_match"`
	IfVersionMatch    *uint64 `json:"if_version_match"`
	RevisionMatch     *Number `json:"revision_match"`
	IfRevisionMatch   *Number `json:"if_revision_match"`
	MustExist         bool    `json:"must_exist"`
	MustNotExist      bool    `json:"must_not_exist"`
	ValueEquals       *string `json:"value_equals"`
	ValueEqualsBase64 *string `json:"value_equals_base64"`
	CreatedMatch      *Number `json:"created_match"`
	LeaseMatch        *string `json:"lease_match"`
}

// Number is a 64-bit number that may be written as a string: JavaScript's numbers
// cannot hold it.
type Number uint64

// UnmarshalJSON reads a number or a string of one.
func (n *Number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return fault.New(fault.InvalidArgument, "a revision must be a whole number, or one as a string")
	}
	*n = Number(v)
	return nil
}

// Request is the transaction. Errors are invalid_argument and name the list, the
// position in it and the member, and the line where the document was YAML.
func (f *Form) Request() (*api.TransactionRequest, error) {
	q, err := f.request()
	if err != nil {
		return nil, f.located(err)
	}
	return q, nil
}

func (f *Form) request() (*api.TransactionRequest, error) {
	then, list := f.Then, "then"
	switch {
	case f.Then == nil:
		then, list = f.Operations, "operations"
	case f.Operations != nil:
		return nil, fault.New(fault.InvalidArgument, "operations and then are two names of one list; give one")
	}
	q := &api.TransactionRequest{Namespace: f.Namespace}
	if err := f.protect(q); err != nil {
		return nil, err
	}
	for i := range f.Checks {
		c := &f.Checks[i]
		cond, err := c.condition(at{"checks", i})
		if err != nil {
			return nil, err
		}
		q.Checks = append(q.Checks, &api.TransactionCheck{Namespace: c.Namespace, Key: c.Key, Condition: cond})
	}
	var err error
	if q.Then, err = operations(list, then); err != nil {
		return nil, err
	}
	q.Otherwise, err = operations("otherwise", f.Otherwise)
	return q, err
}

// protect sets what lets the transaction happen once, or only while a lock is held.
// Given empty they come from a variable that is not set.
func (f *Form) protect(q *api.TransactionRequest) error {
	if f.RequestID != nil {
		if q.RequestId = *f.RequestID; q.RequestId == "" {
			return fault.New(fault.InvalidArgument, "request_id is empty", "member", "request_id")
		}
	}
	if f.Fence == nil {
		return nil
	}
	var problem string
	if q.Fence, problem = ParseFence(*f.Fence); problem != "" {
		return fault.New(fault.InvalidArgument, "fence "+problem, "member", "fence", "actual", clip(*f.Fence))
	}
	return nil
}

// at is a place in a form.
type at struct {
	list string
	item int
}

func (p at) bad(member, problem string) error {
	return fault.New(fault.InvalidArgument, fmt.Sprintf("%s[%d].%s %s", p.list, p.item, member, problem), "list", p.list, "item", p.item, "member", member)
}

func operations(list string, items []Item) ([]*api.TransactionOp, error) {
	out := make([]*api.TransactionOp, 0, len(items))
	for n := range items {
		op, err := items[n].operation(at{list, n})
		if err != nil {
			return nil, err
		}
		out = append(out, op)
	}
	return out, nil
}

func (i *Item) operation(p at) (*api.TransactionOp, error) {
	cond, err := i.condition(p)
	if err != nil {
		return nil, err
	}
	if i.Persist && !strings.EqualFold(i.Type, "TOUCH") {
		return nil, p.bad("persist", "has a meaning for a TOUCH only")
	}
	switch kind := strings.ToUpper(i.Type); kind {
	case "PUT":
		put, err := i.put(p, cond)
		return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: put}}, err
	case "TOUCH":
		touch, err := i.touch(p, cond)
		return &api.TransactionOp{Op: &api.TransactionOp_Touch{Touch: touch}}, err
	case "DELETE", "GET", "CHECK":
		if member := cmp.Or(i.describes(), i.expires()); member != "" {
			return nil, p.bad(member, "has no meaning for a "+kind)
		}
		if kind == "DELETE" {
			if i.KeysOnly {
				return nil, p.bad("keys_only", "has no meaning for a DELETE")
			}
			return &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Namespace: i.Namespace, Key: i.Key, Condition: cond}}}, nil
		}
		if kind == "CHECK" {
			if i.KeysOnly {
				return nil, p.bad("keys_only", "has no meaning for a CHECK")
			}
			return &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Namespace: i.Namespace, Key: i.Key, Condition: cond}}}, nil
		}
		if cond != nil {
			return nil, p.bad("conditions", "of a GET belong into checks")
		}
		return &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Namespace: i.Namespace, Key: i.Key, KeysOnly: i.KeysOnly}}}, nil
	}
	return nil, p.bad("type", "must be PUT, DELETE, TOUCH, GET or CHECK")
}

// expires names a member that only a PUT and a TOUCH have, "" for none.
func (i *Item) expires() string {
	switch {
	case i.TTLSeconds != 0:
		return "ttl_seconds"
	case i.ExpiresAt != "":
		return "expires_at"
	}
	return ""
}

// describes names a member that only a PUT has, "" for none.
func (i *Item) describes() string {
	switch {
	case i.Value != nil:
		return "value"
	case i.ValueBase64 != nil:
		return "value_base64"
	case i.ContentType != "":
		return "content_type"
	case i.Encoding != "":
		return "encoding"
	case i.Checksum != "":
		return "checksum"
	case i.Lease != nil:
		return "lease"
	case i.Tags != nil:
		return "tags"
	case i.Metadata != nil:
		return "metadata"
	}
	return ""
}

func (i *Item) put(p at, cond *api.Condition) (*api.PutRequest, error) {
	put := &api.PutRequest{
		Namespace: i.Namespace, Key: i.Key, ContentType: i.ContentType, Encoding: i.Encoding,
		TtlSeconds: i.TTLSeconds, Tags: i.Tags, Metadata: i.Metadata, Condition: cond,
	}
	if i.Lease != nil {
		if put.Lease = *i.Lease; put.Lease == "" {
			return nil, p.bad("lease", "is empty")
		}
	}
	if i.KeysOnly {
		return nil, p.bad("keys_only", "has no meaning for a PUT")
	}
	if (i.Value == nil) == (i.ValueBase64 == nil) {
		return nil, p.bad("value", "needs exactly one of value and value_base64")
	}
	var err error
	if put.Value, err = bytesOf(p, "value", i.Value, i.ValueBase64); err != nil {
		return nil, err
	}
	if i.Checksum != "" {
		sum, err := strconv.ParseUint(i.Checksum, 16, 32)
		if err != nil || len(i.Checksum) != 8 {
			return nil, p.bad("checksum", "must be 8 hexadecimal digits")
		}
		crc := uint32(sum)
		put.Checksum = &crc
	}
	put.ExpiresAtMs, err = i.deadline(p)
	return put, err
}

// deadline is expires_at in Unix milliseconds, 0 without one.
func (i *Item) deadline(p at) (int64, error) {
	if i.ExpiresAt == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339Nano, i.ExpiresAt)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, p.bad("expires_at", "must be a time as in 2027-01-31T12:00:00Z")
	}
	if i.TTLSeconds != 0 {
		return 0, p.bad("expires_at", "excludes ttl_seconds")
	}
	return t.UnixMilli(), nil
}

func (i *Item) touch(p at, cond *api.Condition) (*api.TouchRequest, error) {
	if member := i.describes(); member != "" {
		return nil, p.bad(member, "has no meaning for a TOUCH")
	}
	if i.KeysOnly {
		return nil, p.bad("keys_only", "has no meaning for a TOUCH")
	}
	at, err := i.deadline(p)
	switch expires := i.TTLSeconds != 0 || at != 0; {
	case err != nil:
	case i.Persist && expires:
		err = p.bad("persist", "excludes ttl_seconds and expires_at")
	case !i.Persist && !expires:
		err = p.bad("type", "TOUCH needs one of ttl_seconds, expires_at and persist")
	}
	return &api.TouchRequest{Namespace: i.Namespace, Key: i.Key, TtlSeconds: i.TTLSeconds, ExpiresAtMs: at, Persist: i.Persist, Condition: cond}, err
}

func (i *Item) condition(p at) (*api.Condition, error) {
	c := i.Conditions
	switch {
	case c == nil:
		c = i.Condition
	case i.Condition != nil:
		return nil, p.bad("conditions", "and condition are two names of the same; give one")
	}
	if c == nil {
		return nil, nil
	}
	return c.condition(p)
}

func (c *Conditions) condition(p at) (*api.Condition, error) {
	if c.VersionMatch != nil && c.IfVersionMatch != nil || c.RevisionMatch != nil && c.IfRevisionMatch != nil {
		return nil, p.bad("conditions", "hold one under both its names")
	}
	if c.LeaseMatch != nil && *c.LeaseMatch == "" {
		return nil, p.bad("lease_match", "is empty")
	}
	out := &api.Condition{MustExist: c.MustExist, MustNotExist: c.MustNotExist, CreatedMatch: (*uint64)(c.CreatedMatch), LeaseMatch: c.LeaseMatch}
	if out.VersionMatch = c.VersionMatch; c.IfVersionMatch != nil {
		out.VersionMatch = c.IfVersionMatch
	}
	if out.RevisionMatch = (*uint64)(c.RevisionMatch); c.IfRevisionMatch != nil {
		out.RevisionMatch = (*uint64)(c.IfRevisionMatch)
	}
	var err error
	out.ValueEquals, err = bytesOf(p, "value_equals", c.ValueEquals, c.ValueEqualsBase64)
	return out, err
}

// bytesOf are the bytes given as text or as base64; nil when neither is.
func bytesOf(p at, member string, text, encoded *string) ([]byte, error) {
	switch {
	case text != nil && encoded != nil:
		return nil, p.bad(member, "and "+member+"_base64 exclude each other")
	case text != nil:
		return append([]byte{}, *text...), nil
	case encoded == nil:
		return nil, nil
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(*encoded, "="))
	b, err := base64.RawStdEncoding.Strict().DecodeString(plain)
	if err != nil {
		return nil, p.bad(member+"_base64", "is not base64")
	}
	return append([]byte{}, b...), nil
}
