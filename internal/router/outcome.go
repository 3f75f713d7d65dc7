package router

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// notExecuted reports whether err says that nothing was done, so that even a
// write may be tried again.
func notExecuted(err error) bool {
	switch fault.CodeOf(err) {
	case fault.WrongLeader, fault.WrongGroup, fault.Unavailable:
		return true
	}
	return false
}

// retryableRead reports whether a read that ended with err may succeed on
// another replica or later. Corruption of one replica's copy is one of those.
func retryableRead(err error) bool {
	switch fault.CodeOf(err) {
	case fault.WrongLeader, fault.WrongGroup, fault.Unavailable, fault.DeadlineExceeded, fault.UnknownOutcome, fault.Corruption:
		return true
	}
	return false
}

// corruptionAttempts bounds how many replicas are asked for a record that is
// damaged on the ones before.
const corruptionAttempts = 4

// worthAnother reports whether attempt n's failure may pass: damage does not,
// but other replicas may not have it.
func worthAnother(err error, n int) bool {
	return fault.CodeOf(err) != fault.Corruption || n < corruptionAttempts
}

// leaderOf returns the leader an error names, "" when it names none.
func leaderOf(err error) keyspace.NodeID {
	var e *fault.Error
	if errors.As(err, &e) {
		return keyspace.NodeID(e.Leader)
	}
	return ""
}

// ErrorStatus returns the wire form of err for an operation of a frame or an
// item of a batch; nil for nil. StatusError is its inverse.
func ErrorStatus(err error) *api.Status {
	if err == nil {
		return nil
	}
	e := asFault(err)
	return &api.Status{
		Code: string(e.Code), Message: e.Message, Details: e.Details,
		RetryAfterMs: retryMillis(e.RetryAfter), LeaderNode: e.Leader,
	}
}

// StatusError returns the error a status describes; nil for success.
func StatusError(s *api.Status) error {
	if s == nil || s.Code == "" {
		return nil
	}
	return &fault.Error{
		Code: fault.Code(s.Code), Message: s.Message, Details: s.Details,
		RetryAfter: time.Duration(s.RetryAfterMs) * time.Millisecond, Leader: s.LeaderNode,
	}
}

// ErrorDetail returns the wire form of err for a unary call; nil for nil.
func ErrorDetail(err error) (detail *api.ErrorDetail, message string) {
	if err == nil {
		return nil, ""
	}
	e := asFault(err)
	return &api.ErrorDetail{
		Code: string(e.Code), Details: e.Details,
		RetryAfterMs: retryMillis(e.RetryAfter), LeaderNode: e.Leader,
	}, e.Message
}

// detailError is the inverse of ErrorDetail.
func detailError(d *api.ErrorDetail, message string) error {
	return &fault.Error{
		Code: fault.Code(d.Code), Message: message, Details: d.Details,
		RetryAfter: time.Duration(d.RetryAfterMs) * time.Millisecond, Leader: d.LeaderNode,
	}
}

func retryMillis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(1, d.Milliseconds())
}

// asFault returns err as an *Error whose message holds the whole chain: a
// cause does not survive the wire otherwise.
func asFault(err error) *fault.Error {
	var e *fault.Error
	if !errors.As(err, &e) {
		return fault.New(plainCode(err), err.Error())
	}
	if errors.Unwrap(e) == nil {
		return e
	}
	flat := *e
	flat.Details = nil
	flat.Message = flat.Error()
	flat.Details = e.Details
	return &flat
}

func plainCode(err error) fault.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return fault.Canceled
	}
	return fault.Internal
}

// rpcError returns the fault behind an error of a call to a peer: the detail
// the peer attached, else what the transport's code means for the caller.
func rpcError(err error, node keyspace.NodeID) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		if e := (*fault.Error)(nil); errors.As(err, &e) {
			return err
		}
		return fault.Wrap(plainCode(err), err, "call to peer failed", "node", node)
	}
	for _, d := range s.Details() {
		if detail, ok := d.(*api.ErrorDetail); ok {
			return detailError(detail, s.Message())
		}
	}
	code := fault.Internal
	switch s.Code() {
	case codes.Unavailable, codes.Aborted, codes.Unknown:
		code = fault.Unavailable
	case codes.DeadlineExceeded:
		code = fault.DeadlineExceeded
	case codes.Canceled:
		code = fault.Canceled
	case codes.ResourceExhausted:
		code = fault.Overloaded
	case codes.Unauthenticated:
		code = fault.Unauthenticated
	case codes.PermissionDenied:
		code = fault.PermissionDenied
	case codes.Unimplemented:
		code = fault.Unsupported
	}
	return fault.New(code, "call to peer failed: "+s.Message(), "node", node)
}
