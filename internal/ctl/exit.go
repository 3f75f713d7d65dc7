package ctl

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"kvstore/client"
	"kvstore/internal/ctl/ctxfile"
	"kvstore/internal/ctl/record"
	"kvstore/internal/ctl/target"
	"kvstore/internal/ctl/transfer"
)

// Exit codes. They are part of the contract: scripts depend on them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitCondition   = 4
	exitUnavailable = 5
	exitUnknown     = 6
	exitOverloaded  = 7
	exitRefused     = 8
	exitCorrupt     = 9
	exitDenied      = 10
	exitPartial     = 11
	exitLost        = 12
	exitInterrupted = 130
)

const exitHelp = `kvctl ends with one of these codes:

    0  done
    1  another error
    2  usage: a command, flag, argument or input line that cannot be used; nothing was sent for it
    3  not found: the key, namespace, lease, node or context does not exist
    4  a condition did not hold, or what should be created exists; nothing was changed
    5  unavailable: no node answered in time; nothing is known to have been changed
    6  unknown outcome: a write was sent and its answer was lost; kvctl request show tells, or read before you repeat it
    7  overloaded: the cluster refused more work for now; try again later
    8  refused: a limit or rule of the store (size, key, token, revision, unsupported)
    9  corruption: stored data, replicas or transferred files differ
   10  not authenticated or not permitted
   11  partial: some items of a batch or transfer failed; each is reported
   12  a lock or leadership was lost; the command under the lock was ended
  130  interrupted
`

// usageError is a command line that cannot be used.
type usageError = target.UsageError

func usagef(format string, args ...any) error { return usageError{Err: fmt.Errorf(format, args...)} }

// codeError ends the program with a code.
type codeError struct {
	error
	code int
	// silent means that the output says it all.
	silent bool
	// final codes stand although the program was interrupted.
	final bool
}

func (e codeError) Unwrap() error { return e.error }

// exitCode maps an error to the code the program ends with.
func exitCode(ctx context.Context, err error) int {
	var own codeError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own) && own.final:
		return own.code
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &own):
		return own.code
	case errors.As(err, new(usageError)), errors.Is(err, record.ErrBad):
		return exitUsage
	case errors.Is(err, transfer.ErrMismatch):
		return exitCorrupt
	case errors.Is(err, transfer.ErrPartial):
		return exitPartial
	case errors.Is(err, ctxfile.ErrUnknown):
		return exitNotFound
	}
	return exitOfCode(client.CodeOf(err))
}

func exitOfCode(code client.Code) int {
	switch code {
	case client.CodeNotFound, client.CodeNamespaceNotFound, client.CodeLeaseNotFound:
		return exitNotFound
	case client.CodeConditionFailed, client.CodeBatchAborted, client.CodeNamespaceExists, client.CodeLeaseExists:
		return exitCondition
	case client.CodeUnavailable, client.CodeDeadlineExceeded, client.CodeWrongLeader, client.CodeWrongGroup, client.CodeCanceled, client.CodeClosed:
		return exitUnavailable
	case client.CodeUnknownOutcome:
		return exitUnknown
	case client.CodeOverloaded:
		return exitOverloaded
	case client.CodeInvalidArgument, client.CodeInvalidKey, client.CodeKeyTooLarge, client.CodeValueTooLarge,
		client.CodeMessageTooLarge, client.CodeChecksumMismatch, client.CodeInvalidToken, client.CodeCrossGroup,
		client.CodeOutOfRange, client.CodeFailedPrecondition, client.CodeUnsupported, client.CodeNamespaceDeleting:
		return exitRefused
	case client.CodeCorruption:
		return exitCorrupt
	case client.CodeUnauthenticated, client.CodePermissionDenied:
		return exitDenied
	case client.CodeInternal:
		return exitError
	}
	return exitError
}

// errorView is an error with -o json.
type errorView struct {
	Code         string            `json:"code"`
	Message      string            `json:"message"`
	Details      map[string]string `json:"details,omitempty"`
	RetryAfterMS int64             `json:"retry_after_ms,omitempty"`
	Hint         string            `json:"hint,omitempty"`
}

// report prints an error with what helps to mend it.
func (a *app) report(ctx context.Context, err error) {
	var own codeError
	if errors.As(err, &own) && own.silent {
		return
	}
	hint := a.hint(err)
	if ctx.Err() != nil && !own.final {
		hint = "interrupted"
	}
	if a.opts.output == formatJSON {
		_ = record.Write(a.Err, map[string]any{"error": viewError(err, hint)})
		return
	}
	a.complain(err)
	if hint != "" {
		_, _ = fmt.Fprintf(a.Err, "  %s\n", hint)
	}
}

// complain prints an error's text.
func (a *app) complain(err error) { _, _ = fmt.Fprintf(a.Err, "kvctl: %s\n", plain(err)) }

func viewError(err error, hint string) errorView {
	v := errorView{Code: string(client.CodeOf(err)), Message: plain(err), Hint: hint}
	var e *client.Error
	if errors.As(err, &e) {
		v.Details, v.RetryAfterMS = e.Details, e.RetryAfter.Milliseconds()
		v.Message = once(e.Message)
	}
	if code := ownCode(err); code != "" {
		v.Code, v.Message = code, plain(err)
	}
	return v
}

// ownCode names failures that are not the store's; empty for those that are.
func ownCode(err error) string {
	var own codeError
	switch {
	case errors.As(err, new(usageError)), errors.Is(err, record.ErrBad):
		return "usage"
	case errors.Is(err, transfer.ErrPartial), errors.As(err, &own) && own.code == exitPartial:
		return "partial"
	case errors.Is(err, transfer.ErrMismatch), errors.As(err, &own) && own.code == exitCorrupt:
		return string(client.CodeCorruption)
	case errors.Is(err, ctxfile.ErrUnknown):
		return string(client.CodeNotFound)
	case !errors.As(err, new(*client.Error)):
		return "error"
	}
	return ""
}

// plain is an error's text. The SDK's prefix says nothing here, also inside a
// longer message.
func plain(err error) string {
	return once(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "kvstore: "), ": kvstore: ", ": "))
}

// detailGroup is how an error's details are written.
var detailGroup = regexp.MustCompile(` \([a-z_0-9]+=[^()]*\)`)

// once leaves out what a chain of errors says again: each layer between the cluster
// and here adds its sentence and details to those that it got.
func once(text string) string {
	seen := map[string]bool{}
	text = detailGroup.ReplaceAllStringFunc(text, func(group string) string {
		var kept []string
		for pair := range strings.SplitSeq(group[2:len(group)-1], ", ") {
			if !seen[pair] {
				kept = append(kept, pair)
			}
			seen[pair] = true
		}
		if len(kept) == 0 {
			return ""
		}
		return " (" + strings.Join(kept, ", ") + ")"
	})
	const shortest = 12 // what is shorter may be a name
	var parts []string
	for part := range strings.SplitSeq(text, ": ") {
		sentence := detailGroup.ReplaceAllString(part, "")
		if len(part) < shortest || part != sentence || !seen[sentence] {
			parts = append(parts, part)
		}
		seen[sentence] = true
	}
	return strings.Join(parts, ": ")
}

// hint says where an endpoint came from, or what to try.
func (a *app) hint(err error) string {
	switch code := client.CodeOf(err); {
	case errors.As(err, new(usageError)):
		return "`kvctl help` and `kvctl COMMAND --help` show what is possible"
	case slices.Contains([]client.Code{client.CodeUnavailable, client.CodeDeadlineExceeded, client.CodeUnauthenticated}, code) && a.target.From != "":
		text := fmt.Sprintf("endpoints %s, from %s", strings.Join(a.target.Endpoints, ", "), a.target.From)
		if what := target.Hint(err); what != "" {
			text += "; " + what
		}
		return text
	case code == client.CodeUnknownOutcome:
		if id := client.RequestIDOf(err); id != "" {
			return "kvctl request show " + id + " tells what became of it"
		}
		return "read the key before you repeat the write"
	}
	return target.Hint(err)
}
