package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// Requests that may not be repeated blindly carry an id, which the servers remember
// with what came of it for ten minutes (docs/transactions.md): transactions that
// write, conditional puts and deletes, and atomic batches. When the answer of one is
// lost this package sends it again under its id, as long as the context allows, and
// so gets the answer; nothing is executed twice. Plain puts and deletes carry none:
// whoever repeats one knows whether that matters.

const fieldRequestID = 20 // of every request that has one

// NewRequestID returns an id for one request, to be given with WithRequestID or
// Txn.RequestID: for callers who keep it, so that they can ask what became of the
// request after they were interrupted. Without one this package makes its own.
func (c *Client) NewRequestID() string {
	created := time.Now()
	if t := c.topology(); t.serverTime > 0 { // the servers judge by their time
		created = time.UnixMilli(t.serverTime).Add(c.now() - t.received)
	}
	return keyspace.TxnID{Created: keyspace.RevisionAt(created.UnixMilli()), Random: rand.Uint64()}.String()
}

// ownID is the id of a request that has none from its caller; "" where ids are off or
// the servers do not know them.
func (c *Client) ownID(given string) string {
	if given != "" || c.cfg.NoRequestIDs || c.topology().serverTime == 0 {
		return given
	}
	return c.NewRequestID()
}

// name gives the operation the id of its caller, or one of this package's, before it
// is encoded.
func (o *operation) name(c *Client, given string) string {
	o.requestID = c.ownID(given)
	o.ownID = given == "" && o.requestID != ""
	return o.requestID
}

// rename gives the operation another id; that is the last field of its message.
func (o *operation) rename(id string) {
	copy(o.body[len(o.body)-len(id):], id)
	o.requestID = id
}

// givenUp says that a request was not executed and never will be under its id: it
// was abandoned by the servers, or brought to its end by somebody who asked for it.
func (e *Error) givenUp() bool {
	return e.Code == CodeFailedPrecondition && e.Details["state"] == string(RequestAborted)
}

// WithRequestID names a put, a delete or an atomic batch. The same id again with the
// same request is not executed again, and answers the same.
func WithRequestID(id string) interface {
	PutOption
	DeleteOption
	BatchWriteOption
} {
	return requestIDOption(id)
}

type requestIDOption string

func (o requestIDOption) applyPut(c *putCall)               { c.item.requestID = string(o) }
func (o requestIDOption) applyDelete(c *deleteCall)         { c.item.requestID = string(o) }
func (o requestIDOption) applyBatchWrite(c *batchWriteCall) { c.requestID = string(o) }

// RequestIDOf is the id of the request that an error is about, "" when it had none.
// After ErrUnknownOutcome DescribeRequest tells by it what happened.
func RequestIDOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Details["request_id"]
	}
	return ""
}

// RequestState says what became of a request.
type RequestState string

// The states.
const (
	// RequestCommitted was executed. RequestAborted was not and never will be.
	RequestCommitted RequestState = "committed"
	RequestAborted   RequestState = "aborted"
	// RequestPending is under way and could not be brought to its end in time.
	RequestPending RequestState = "pending"
	// RequestUnknown did not arrive, or not yet, or was refused.
	RequestUnknown RequestState = "unknown"
	// RequestExpired is too old: it is not executed any more, and nothing is known.
	RequestExpired RequestState = "expired"
)

// RequestOutcome is what became of a request.
type RequestOutcome struct {
	ID    string
	State RequestState
	// Revision is that of its writes, 0 when it wrote nothing; Succeeded says that
	// all checks of a transaction held.
	Revision  uint64
	Succeeded bool
	// Err is the condition that did not hold, or why it was aborted.
	Err error
	// Answer is the server's own message, which holds the answer of the request as
	// far as it is kept, without the values that it read.
	Answer *api.RequestOutcome
}

// DescribeRequest tells what became of a request. One that is under way is brought to
// its end first: what is told stays so, but for RequestUnknown.
func (c *Client) DescribeRequest(ctx context.Context, id string) (RequestOutcome, error) {
	out, err := unary(ctx, c, readUnary, &api.DescribeRequestRequest{RequestId: id}, kvClient.DescribeRequest)
	if err != nil {
		return RequestOutcome{}, err
	}
	o := RequestOutcome{
		ID: out.GetRequestId(), State: RequestState(strings.ToLower(strings.TrimPrefix(out.GetState().String(), "STATE_"))),
		Revision: out.GetRevision(), Succeeded: out.GetSucceeded(), Answer: out,
	}
	if s := out.GetError(); s != nil {
		o.Err = &Error{Code: Code(s.GetCode()), Message: s.GetMessage(), Details: s.GetDetails()}
	}
	return o, nil
}

// truth is the last failure of an operation as its caller gets it: once an answer was
// lost, what says that a later attempt was not executed says nothing of the first.
func (o *operation) truth(err error) error {
	var e *Error
	if !o.unsure || !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case CodeUnavailable, CodeOverloaded, CodeWrongLeader, CodeWrongGroup, CodeDeadlineExceeded, CodeCanceled, CodeOutOfRange, CodeUnknownOutcome:
		return o.unknownOf(err)
	}
	return err
}

// unknownOf is unknownOutcome that names the request.
func (o *operation) unknownOf(cause error) *Error {
	e := unknownOutcome(cause)
	if o.requestID != "" {
		e.Details = withEntry(e.Details, "request_id", o.requestID)
	}
	return e
}

// Snapshot reads keys, of any groups, at one moment between its call and its return.
// It locks nothing: it neither aborts nor delays others. The results have the order
// of the keys; a key that is not there has ErrNotFound.
func (c *Client) Snapshot(ctx context.Context, keys []string, opts ...GetOption) ([]OpResult, error) {
	t := c.Txn(ctx)
	for _, key := range keys {
		t.Then(OpGet(key, opts...))
	}
	res, err := t.Commit()
	if err != nil {
		return nil, err
	}
	return res.Results, nil
}
