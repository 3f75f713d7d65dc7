package client

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
)

// Code is the public, stable name of a kind of failure. The codes are the
// same in gRPC, REST, this package and kvctl (docs/errors.md).
type Code string

// The codes a server answers with.
const (
	CodeInvalidArgument    Code = "invalid_argument"
	CodeInvalidKey         Code = "invalid_key"
	CodeKeyTooLarge        Code = "key_too_large"
	CodeValueTooLarge      Code = "value_too_large"
	CodeMessageTooLarge    Code = "message_too_large"
	CodeChecksumMismatch   Code = "checksum_mismatch"
	CodeInvalidToken       Code = "invalid_token"
	CodeNotFound           Code = "not_found"
	CodeNamespaceNotFound  Code = "namespace_not_found"
	CodeNamespaceExists    Code = "namespace_exists"
	CodeNamespaceDeleting  Code = "namespace_deleting"
	CodeLeaseNotFound      Code = "lease_not_found"
	CodeLeaseExists        Code = "lease_exists"
	CodeConditionFailed    Code = "condition_failed"
	CodeBatchAborted       Code = "batch_aborted"
	CodeCrossGroup         Code = "cross_group"
	CodeOutOfRange         Code = "out_of_range"
	CodeOverloaded         Code = "overloaded"
	CodeUnavailable        Code = "unavailable"
	CodeWrongLeader        Code = "wrong_leader"
	CodeWrongGroup         Code = "wrong_group"
	CodeDeadlineExceeded   Code = "deadline_exceeded"
	CodeCanceled           Code = "canceled"
	CodeUnknownOutcome     Code = "unknown_outcome"
	CodeCorruption         Code = "corruption"
	CodeUnauthenticated    Code = "unauthenticated"
	CodePermissionDenied   Code = "permission_denied"
	CodeFailedPrecondition Code = "failed_precondition"
	CodeUnsupported        Code = "unsupported"
	CodeInternal           Code = "internal"
)

// CodeClosed is this package's own: the Client was closed.
const CodeClosed Code = "client_closed"

// Sentinels for errors.Is: every *Error with the same code matches.
var (
	ErrInvalidArgument    = sentinel(CodeInvalidArgument)
	ErrInvalidKey         = sentinel(CodeInvalidKey)
	ErrKeyTooLarge        = sentinel(CodeKeyTooLarge)
	ErrValueTooLarge      = sentinel(CodeValueTooLarge)
	ErrMessageTooLarge    = sentinel(CodeMessageTooLarge)
	ErrChecksumMismatch   = sentinel(CodeChecksumMismatch)
	ErrInvalidToken       = sentinel(CodeInvalidToken)
	ErrNotFound           = sentinel(CodeNotFound)
	ErrNamespaceNotFound  = sentinel(CodeNamespaceNotFound)
	ErrNamespaceExists    = sentinel(CodeNamespaceExists)
	ErrNamespaceDeleting  = sentinel(CodeNamespaceDeleting)
	ErrLeaseNotFound      = sentinel(CodeLeaseNotFound)
	ErrLeaseExists        = sentinel(CodeLeaseExists)
	ErrConditionFailed    = sentinel(CodeConditionFailed)
	ErrBatchAborted       = sentinel(CodeBatchAborted)
	ErrCrossGroup         = sentinel(CodeCrossGroup)
	ErrOutOfRange         = sentinel(CodeOutOfRange)
	ErrOverloaded         = sentinel(CodeOverloaded)
	ErrUnavailable        = sentinel(CodeUnavailable)
	ErrWrongLeader        = sentinel(CodeWrongLeader)
	ErrWrongGroup         = sentinel(CodeWrongGroup)
	ErrDeadlineExceeded   = sentinel(CodeDeadlineExceeded)
	ErrCanceled           = sentinel(CodeCanceled)
	ErrUnknownOutcome     = sentinel(CodeUnknownOutcome)
	ErrCorruption         = sentinel(CodeCorruption)
	ErrUnauthenticated    = sentinel(CodeUnauthenticated)
	ErrPermissionDenied   = sentinel(CodePermissionDenied)
	ErrFailedPrecondition = sentinel(CodeFailedPrecondition)
	ErrUnsupported        = sentinel(CodeUnsupported)
	ErrInternal           = sentinel(CodeInternal)
	ErrClosed             = sentinel(CodeClosed)
)

// Error is every failure this package returns, except a BatchError, which
// holds several. Details name what was wrong, the limit and the actual value.
//
// An error that stems from the caller's context also matches
// context.Canceled or context.DeadlineExceeded with errors.Is; for a write
// that may have reached a server its code is CodeUnknownOutcome.
type Error struct {
	Code    Code
	Message string
	Details map[string]string
	// RetryAfter is the server's hint; 0 means none.
	RetryAfter time.Duration
	// Leader is the id of the node that leads, on CodeWrongLeader, when known.
	Leader string
	cause  error
}

func sentinel(c Code) *Error { return &Error{Code: c} }

// newError builds an error; kv are detail names and values in turn.
func newError(code Code, message string, kv ...any) *Error {
	e := &Error{Code: code, Message: message}
	for i := 0; i+1 < len(kv); i += 2 {
		if e.Details == nil {
			e.Details = make(map[string]string, len(kv)/2)
		}
		e.Details[fmt.Sprint(kv[i])] = fmt.Sprint(kv[i+1])
	}
	return e
}

// wrapError is newError around a cause.
func wrapError(code Code, cause error, message string, kv ...any) *Error {
	e := newError(code, message, kv...)
	e.cause = cause
	return e
}

const errorPrefix = "kvstore: "

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(errorPrefix)
	b.WriteString(string(e.Code))
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if len(e.Details) > 0 {
		names := make([]string, 0, len(e.Details))
		for n := range e.Details {
			names = append(names, n)
		}
		sort.Strings(names)
		sep := " ("
		for _, n := range names {
			fmt.Fprintf(&b, "%s%s=%s", sep, n, e.Details[n])
			sep = ", "
		}
		b.WriteByte(')')
	}
	if e.cause != nil {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

// after tells what an attempt said before the time was over: that it is over says
// nothing of why.
func (e *Error) after(said *Error) *Error {
	if said == nil || said == e || e.Code != CodeDeadlineExceeded || said.Code == CodeDeadlineExceeded {
		return e
	}
	told := *e
	told.Message += "; an attempt before ended with " + strings.TrimPrefix(said.Error(), errorPrefix)
	return &told
}

// Unwrap returns the cause: a context's error, a transport's, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is one of the sentinels with e's code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Details == nil && t.Code == e.Code
}

// CodeOf returns the code of err: "" for nil, CodeInternal for an error that
// is not of this package.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// notExecuted says whether a code means that nothing was done and that trying
// again may help.
func notExecuted(c Code) bool {
	return c == CodeWrongLeader || c == CodeWrongGroup || c == CodeUnavailable || c == CodeOverloaded
}

// BatchError says that items of a batch failed. errors.Is and errors.As look
// at all of them.
type BatchError struct {
	// Total counts the items of the batch.
	Total int
	// Items holds the failures by position in the batch.
	Items map[int]error
}

func (e *BatchError) Error() string {
	first := e.Total
	for i := range e.Items {
		first = min(first, i)
	}
	return fmt.Sprintf("kvstore: %d of %d items failed, first item %d: %v", len(e.Items), e.Total, first, e.Items[first])
}

// Unwrap returns the failures in the order of their items.
func (e *BatchError) Unwrap() []error {
	positions := make([]int, 0, len(e.Items))
	for i := range e.Items {
		positions = append(positions, i)
	}
	sort.Ints(positions)
	errs := make([]error, len(positions))
	for n, i := range positions {
		errs[n] = e.Items[i]
	}
	return errs
}

// errorFromGRPC turns the error of an RPC into an Error. answered says whether
// a server of the store gave it (it then carries an ErrorDetail): without one
// it may have been executed.
func errorFromGRPC(err error) (e *Error, answered bool) {
	var own *Error
	if errors.As(err, &own) {
		return own, true
	}
	st, ok := status.FromError(err)
	if !ok {
		if ctxErr := contextError(err); ctxErr != nil {
			return ctxErr, false
		}
		return wrapError(CodeUnavailable, err, "connection failed"), false
	}
	for _, d := range st.Details() {
		if d, ok := d.(*api.ErrorDetail); ok {
			return &Error{
				Code: Code(d.GetCode()), Message: st.Message(), Details: d.GetDetails(),
				RetryAfter: time.Duration(d.GetRetryAfterMs()) * time.Millisecond,
				Leader:     d.GetLeaderNode(), cause: contextCause(Code(d.GetCode())),
			}, true
		}
	}
	code := codeFromGRPC(st.Code())
	if code == CodeOverloaded && strings.Contains(st.Message(), "larger than max") {
		code = CodeMessageTooLarge // gRPC's own limit, before any of our code
	}
	return &Error{Code: code, Message: st.Message(), cause: contextCause(code)}, false
}

// codeFromGRPC maps statuses made by gRPC itself or by proxies between.
func codeFromGRPC(c codes.Code) Code {
	switch c {
	case codes.Canceled:
		return CodeCanceled
	case codes.InvalidArgument:
		return CodeInvalidArgument
	case codes.DeadlineExceeded:
		return CodeDeadlineExceeded
	case codes.PermissionDenied:
		return CodePermissionDenied
	case codes.Unauthenticated:
		return CodeUnauthenticated
	case codes.ResourceExhausted:
		return CodeOverloaded
	case codes.Unimplemented:
		return CodeUnsupported
	case codes.OutOfRange:
		return CodeOutOfRange
	case codes.Unavailable, codes.Unknown, codes.Aborted:
		return CodeUnavailable
	case codes.OK, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Internal, codes.DataLoss:
		return CodeInternal
	}
	return CodeInternal
}

// contextCause lets errors.Is find the context's error behind a code.
func contextCause(c Code) error {
	switch c {
	case CodeDeadlineExceeded:
		return context.DeadlineExceeded
	case CodeCanceled:
		return context.Canceled
	default:
		return nil
	}
}

// contextError turns a context's error into an Error, others into nil.
func contextError(err error) *Error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return wrapError(CodeDeadlineExceeded, err, "deadline passed before an answer came")
	case errors.Is(err, context.Canceled):
		return wrapError(CodeCanceled, err, "canceled by the caller")
	default:
		return nil
	}
}

// malformedError is a server's message that cannot be read.
type malformedError string

func (e malformedError) Error() string { return "malformed " + string(e) }

func malformed(what string) error { return malformedError(what) }

// unreadable is what a malformed answer means: a write may have been executed.
func unreadable(write bool, cause error) *Error {
	if write {
		return unknownOutcome(cause)
	}
	return wrapError(CodeInternal, cause, "the answer cannot be read")
}

// unknownOutcome says that a write was sent and its answer is lost.
func unknownOutcome(cause error) *Error {
	return wrapError(CodeUnknownOutcome, cause, "the write was sent and its answer was lost; it may or may not have been executed")
}
