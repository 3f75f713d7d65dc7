// Package fault defines the store's error codes and the error type that
// carries them through every layer. Servers map codes to gRPC and HTTP in
// internal/server/status; docs/errors.md lists them for users.
package fault

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Code is the public, stable name of a kind of failure.
type Code string

// The codes. Each is documented in docs/errors.md.
const (
	InvalidArgument    Code = "invalid_argument"
	InvalidKey         Code = "invalid_key"
	KeyTooLarge        Code = "key_too_large"
	ValueTooLarge      Code = "value_too_large"
	MessageTooLarge    Code = "message_too_large"
	ChecksumMismatch   Code = "checksum_mismatch"
	InvalidToken       Code = "invalid_token"
	NotFound           Code = "not_found"
	NamespaceNotFound  Code = "namespace_not_found"
	NamespaceExists    Code = "namespace_exists"
	NamespaceDeleting  Code = "namespace_deleting"
	LeaseNotFound      Code = "lease_not_found"
	LeaseExists        Code = "lease_exists"
	ConditionFailed    Code = "condition_failed"
	BatchAborted       Code = "batch_aborted"
	CrossGroup         Code = "cross_group"
	OutOfRange         Code = "out_of_range"
	Overloaded         Code = "overloaded"
	Unavailable        Code = "unavailable"
	WrongLeader        Code = "wrong_leader"
	WrongGroup         Code = "wrong_group"
	DeadlineExceeded   Code = "deadline_exceeded"
	Canceled           Code = "canceled"
	UnknownOutcome     Code = "unknown_outcome"
	Corruption         Code = "corruption"
	Unauthenticated    Code = "unauthenticated"
	PermissionDenied   Code = "permission_denied"
	FailedPrecondition Code = "failed_precondition"
	Unsupported        Code = "unsupported"
	Internal           Code = "internal"
)

// Error is a failure with a public code. Details name what was wrong, the
// limit and the actual value.
type Error struct {
	Code    Code
	Message string
	Details map[string]string
	// RetryAfter is a hint; 0 means none.
	RetryAfter time.Duration
	// Leader is the node that leads, on WrongLeader, when known.
	Leader string
	cause  error
}

// New returns an error; kv are detail names and values in turn.
func New(code Code, message string, kv ...any) *Error {
	e := &Error{Code: code, Message: message}
	for i := 0; i+1 < len(kv); i += 2 {
		if e.Details == nil {
			e.Details = make(map[string]string, len(kv)/2)
		}
		e.Details[fmt.Sprint(kv[i])] = fmt.Sprint(kv[i+1])
	}
	return e
}

// Wrap is New around a cause.
func Wrap(code Code, cause error, message string, kv ...any) *Error {
	e := New(code, message, kv...)
	e.cause = cause
	return e
}

// WithRetry sets RetryAfter and returns e.
func (e *Error) WithRetry(after time.Duration) *Error {
	e.RetryAfter = after
	return e
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if len(e.Details) > 0 {
		names := make([]string, 0, len(e.Details))
		for n := range e.Details {
			names = append(names, n)
		}
		sort.Strings(names)
		b.WriteString(" (")
		for i, n := range names {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s=%s", n, e.Details[n])
		}
		b.WriteByte(')')
	}
	if e.cause != nil {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code && t.Message == ""
}

// CodeOf returns the code of err: "" for nil, Internal for foreign errors.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
