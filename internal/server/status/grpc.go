package status

import (
	"errors"
	"regexp"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Error returns err as a gRPC status error with an api.ErrorDetail; nil stays
// nil and a status that already has a detail stays as it is.
func Error(err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		if s, ok := grpcStatus(err); ok && len(s.Details()) > 0 {
			return err
		}
		f = Fault(err)
	}
	s := status.New(GRPC(f.Code), message(f))
	if with, detailErr := s.WithDetails(Detail(f)); detailErr == nil {
		s = with
	}
	return s.Err()
}

// FromError returns a gRPC error, as a client receives it, as a *fault.Error;
// nil stays nil. The inverse of Error.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	return Fault(err)
}

// Detail returns the api.ErrorDetail of err; nil for nil.
func Detail(err error) *api.ErrorDetail {
	if err == nil {
		return nil
	}
	f := Fault(err)
	return &api.ErrorDetail{
		Code:         string(f.Code),
		Details:      f.Details,
		RetryAfterMs: retryMillis(f.RetryAfter),
		LeaderNode:   f.Leader,
	}
}

// FromDetail is the inverse of Detail and Message; nil for no code.
func FromDetail(message string, d *api.ErrorDetail) error {
	if d.GetCode() == "" {
		return nil
	}
	return fromParts(d.Code, message, d.Details, d.RetryAfterMs, d.LeaderNode)
}

// Item returns err as the api.Status of a batch item or a pipelined operation;
// nil for nil.
func Item(err error) *api.Status {
	if err == nil {
		return nil
	}
	f := Fault(err)
	return &api.Status{
		Code:         string(f.Code),
		Message:      message(f),
		Details:      f.Details,
		RetryAfterMs: retryMillis(f.RetryAfter),
		LeaderNode:   f.Leader,
	}
}

// FromItem is the inverse of Item: nil for success.
func FromItem(s *api.Status) error {
	if s.GetCode() == "" {
		return nil
	}
	return fromParts(s.Code, s.Message, s.Details, s.RetryAfterMs, s.LeaderNode)
}

func fromParts(code, message string, details map[string]string, retryMS int64, leader string) *fault.Error {
	return &fault.Error{
		Code:       fault.Code(code),
		Message:    message,
		Details:    details,
		RetryAfter: time.Duration(retryMS) * time.Millisecond,
		Leader:     leader,
	}
}

// retryMillis rounds up, so that a short hint does not become none.
func retryMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// grpcStatus returns the status err carries, if it is a gRPC error.
func grpcStatus(err error) (*status.Status, bool) {
	s, ok := status.FromError(err)
	return s, ok && s != nil
}

// bare says what a status without our detail means: it was made by gRPC itself
// or by something between us.
var bare = map[codes.Code]fault.Code{
	codes.Canceled:           fault.Canceled,
	codes.Unknown:            fault.Internal,
	codes.InvalidArgument:    fault.InvalidArgument,
	codes.DeadlineExceeded:   fault.DeadlineExceeded,
	codes.NotFound:           fault.NotFound,
	codes.AlreadyExists:      fault.NamespaceExists,
	codes.PermissionDenied:   fault.PermissionDenied,
	codes.ResourceExhausted:  fault.Overloaded,
	codes.FailedPrecondition: fault.FailedPrecondition,
	codes.Aborted:            fault.BatchAborted,
	codes.OutOfRange:         fault.OutOfRange,
	codes.Unimplemented:      fault.Unsupported,
	codes.Internal:           fault.Internal,
	codes.Unavailable:        fault.Unavailable,
	codes.DataLoss:           fault.Corruption,
	codes.Unauthenticated:    fault.Unauthenticated,
}

// tooLarge is how gRPC refuses a message before any of our code sees it.
var tooLarge = regexp.MustCompile(`larger than max \((\d+) vs\. (\d+)\)`)

func fromStatus(s *status.Status) *fault.Error {
	for _, d := range s.Details() {
		if detail, ok := d.(*api.ErrorDetail); ok && detail.Code != "" {
			return fromParts(detail.Code, s.Message(), detail.Details, detail.RetryAfterMs, detail.LeaderNode)
		}
	}
	if m := tooLarge.FindStringSubmatch(s.Message()); m != nil && s.Code() == codes.ResourceExhausted {
		return fault.New(fault.MessageTooLarge, "the message is too large", "actual", m[1], "limit", m[2])
	}
	code, ok := bare[s.Code()]
	if !ok {
		code = fault.Internal
	}
	return &fault.Error{Code: code, Message: s.Message()}
}
