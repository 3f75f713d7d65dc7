// Package status is the one mapping between the store's error codes
// (internal/fault), gRPC statuses with an api.ErrorDetail, the api.Status of
// batch items and pipelined operations, and HTTP statuses. docs/errors.md is
// its page for users.
package status

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"

	"kvstore/internal/fault"
)

// row is what a code is called elsewhere.
type row struct {
	grpc  codes.Code
	http  int
	title string
}

// StatusClientClosedRequest answers a caller that went away; it is seen in
// logs and metrics only.
const StatusClientClosedRequest = 499

// rows holds every code. unknown_outcome is deliberately neither UNAVAILABLE
// nor 502-504: proxies and clients repeat those on their own.
var rows = map[fault.Code]row{
	fault.InvalidArgument:    {codes.InvalidArgument, http.StatusBadRequest, "Invalid argument"},
	fault.InvalidKey:         {codes.InvalidArgument, http.StatusBadRequest, "Invalid key"},
	fault.KeyTooLarge:        {codes.InvalidArgument, http.StatusBadRequest, "Key too large"},
	fault.ValueTooLarge:      {codes.InvalidArgument, http.StatusRequestEntityTooLarge, "Value too large"},
	fault.MessageTooLarge:    {codes.InvalidArgument, http.StatusRequestEntityTooLarge, "Message too large"},
	fault.ChecksumMismatch:   {codes.InvalidArgument, http.StatusBadRequest, "Checksum mismatch"},
	fault.InvalidToken:       {codes.InvalidArgument, http.StatusBadRequest, "Invalid continuation token"},
	fault.NotFound:           {codes.NotFound, http.StatusNotFound, "Not found"},
	fault.NamespaceNotFound:  {codes.NotFound, http.StatusNotFound, "Namespace not found"},
	fault.NamespaceExists:    {codes.AlreadyExists, http.StatusConflict, "Namespace exists"},
	fault.NamespaceDeleting:  {codes.FailedPrecondition, http.StatusConflict, "Namespace is being deleted"},
	fault.LeaseNotFound:      {codes.NotFound, http.StatusNotFound, "Lease not found"},
	fault.LeaseExists:        {codes.AlreadyExists, http.StatusConflict, "Lease exists"},
	fault.ConditionFailed:    {codes.FailedPrecondition, http.StatusPreconditionFailed, "Condition failed"},
	fault.BatchAborted:       {codes.Aborted, http.StatusConflict, "Batch aborted"},
	fault.CrossGroup:         {codes.InvalidArgument, http.StatusUnprocessableEntity, "Keys of the namespace _system take part in no transaction with others"},
	fault.OutOfRange:         {codes.OutOfRange, http.StatusGone, "Revision out of range"},
	fault.Overloaded:         {codes.ResourceExhausted, http.StatusTooManyRequests, "Overloaded"},
	fault.Unavailable:        {codes.Unavailable, http.StatusServiceUnavailable, "Unavailable"},
	fault.WrongLeader:        {codes.Unavailable, http.StatusServiceUnavailable, "Wrong leader"},
	fault.WrongGroup:         {codes.Unavailable, http.StatusServiceUnavailable, "Wrong group"},
	fault.DeadlineExceeded:   {codes.DeadlineExceeded, http.StatusGatewayTimeout, "Deadline exceeded"},
	fault.Canceled:           {codes.Canceled, StatusClientClosedRequest, "Canceled"},
	fault.UnknownOutcome:     {codes.Unknown, http.StatusInternalServerError, "Outcome unknown"},
	fault.Corruption:         {codes.DataLoss, http.StatusInternalServerError, "Stored data is damaged"},
	fault.Unauthenticated:    {codes.Unauthenticated, http.StatusUnauthorized, "Unauthenticated"},
	fault.PermissionDenied:   {codes.PermissionDenied, http.StatusForbidden, "Permission denied"},
	fault.FailedPrecondition: {codes.FailedPrecondition, http.StatusConflict, "Failed precondition"},
	fault.Unsupported:        {codes.Unimplemented, http.StatusNotImplemented, "Unsupported"},
	fault.Internal:           {codes.Internal, http.StatusInternalServerError, "Internal error"},
}

// Codes returns every code, in no order.
func Codes() []fault.Code {
	all := make([]fault.Code, 0, len(rows))
	for c := range rows {
		all = append(all, c)
	}
	return all
}

func rowOf(c fault.Code) row {
	if r, ok := rows[c]; ok {
		return r
	}
	return rows[fault.Internal]
}

// GRPC returns the gRPC code of c; OK for the empty code.
func GRPC(c fault.Code) codes.Code {
	if c == "" {
		return codes.OK
	}
	return rowOf(c).grpc
}

// HTTP returns the HTTP status of c; 200 for the empty code.
func HTTP(c fault.Code) int {
	if c == "" {
		return http.StatusOK
	}
	return rowOf(c).http
}

// Title returns the short English name of c, the same for each occurrence.
func Title(c fault.Code) string { return rowOf(c).title }

// Fault returns err as a *fault.Error: itself when it is or wraps one, the
// meaning of a context error or of a gRPC status, else internal. A text added
// by wrapping is kept. nil stays nil.
func Fault(err error) *fault.Error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.DeadlineExceeded, err, "the deadline passed")
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Canceled, err, "the caller went away")
	}
	if s, ok := grpcStatus(err); ok {
		return fromStatus(s)
	}
	return fault.Wrap(fault.Internal, err, "internal error")
}

// CodeOf returns the code of any error, "" for nil.
func CodeOf(err error) fault.Code {
	if err == nil {
		return ""
	}
	return Fault(err).Code
}

// message is the text of f for a caller, without the details, which travel
// beside it. The cause of an internal error stays in the log.
func message(f *fault.Error) string {
	if cause := f.Unwrap(); cause != nil && f.Code != fault.Internal && f.Code != fault.Corruption {
		var inner *fault.Error
		if !errors.As(cause, &inner) && !isContext(cause) {
			return f.Message + ": " + cause.Error()
		}
	}
	return f.Message
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Message returns the text of err for a caller: what was wrong, without its
// details, which travel beside it, and without the inside of internal errors.
func Message(err error) string {
	if err == nil {
		return ""
	}
	return message(Fault(err))
}
