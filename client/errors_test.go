package client

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// codesIn returns the string constants of a type Code in a file.
func codesIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || len(spec.Values) != 1 {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				code, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found[code] = true
			}
		}
		return true
	})
	return found
}

// The SDK's codes are the servers', plus its own.
func TestCodesAreTheServers(t *testing.T) {
	own, servers := codesIn(t, "errors.go"), codesIn(t, "../internal/fault/fault.go")
	delete(own, string(CodeClosed))
	if !reflect.DeepEqual(own, servers) {
		t.Fatalf("codes\n%v\nthe servers have\n%v", slices.Sorted(maps.Keys(own)), slices.Sorted(maps.Keys(servers)))
	}
}

func TestErrorsMatchByCode(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", newError(CodeNotFound, "no such key", "key", "k", "a", 1))
	if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrOverloaded) || errors.Is(ErrNotFound, err) {
		t.Fatal("errors.Is is wrong")
	}
	if got, want := err.Error(), "wrapped: kvstore: not_found: no such key (a=1, key=k)"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	lost := unknownOutcome(context.DeadlineExceeded)
	if !errors.Is(lost, ErrUnknownOutcome) || !errors.Is(lost, context.DeadlineExceeded) {
		t.Fatal("a lost write hides its cause")
	}
	if CodeOf(nil) != "" || CodeOf(errors.New("x")) != CodeInternal || CodeOf(err) != CodeNotFound {
		t.Fatal("CodeOf is wrong")
	}
}

// Statuses without an ErrorDetail come from gRPC or a proxy.
func TestForeignStatuses(t *testing.T) {
	for code, want := range map[codes.Code]Code{
		codes.Unavailable: CodeUnavailable, codes.DeadlineExceeded: CodeDeadlineExceeded, codes.Canceled: CodeCanceled,
		codes.ResourceExhausted: CodeOverloaded, codes.Unimplemented: CodeUnsupported, codes.Unauthenticated: CodeUnauthenticated,
		codes.PermissionDenied: CodePermissionDenied, codes.Internal: CodeInternal, codes.InvalidArgument: CodeInvalidArgument, codes.OutOfRange: CodeOutOfRange,
	} {
		if e, answered := errorFromGRPC(status.Error(code, "x")); e.Code != want || answered {
			t.Errorf("%v is %v, answered %v", code, e.Code, answered)
		}
	}
	e, _ := errorFromGRPC(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)"))
	wantError(t, e, ErrMessageTooLarge)
	e, _ = errorFromGRPC(context.DeadlineExceeded)
	wantError(t, e, ErrDeadlineExceeded)
}
