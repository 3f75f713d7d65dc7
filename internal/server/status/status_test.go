package status

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kvstore/internal/fault"
)

// Every code survives the way over gRPC and through an item's status, wrapped
// or not, with all it says.
func TestEveryCodeRoundTrips(t *testing.T) {
	for _, code := range Codes() {
		want := fault.New(code, "what was wrong", "limit", 5, "actual", 6).WithRetry(1500 * time.Millisecond)
		want.Leader = "node-b"
		err := fmt.Errorf("group 3: %w", want)
		wire := Error(err)
		s, _ := status.FromError(wire)
		if s.Code() != GRPC(code) || s.Message() != "what was wrong" {
			t.Errorf("%s: status %v", code, s)
		}
		for way, got := range map[string]error{"grpc": FromError(wire), "item": FromItem(Item(err)), "detail": FromDetail(Message(err), Detail(err))} {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s by %s: %#v, want %#v", code, way, got, want)
			}
		}
		if again := Error(wire); !errors.Is(again, wire) {
			t.Errorf("%s: an error that is mapped is mapped again", code)
		}
	}
}

func TestNothingStaysNothing(t *testing.T) {
	if Error(nil) != nil || FromError(nil) != nil || Item(nil) != nil || FromItem(nil) != nil || Detail(nil) != nil ||
		FromDetail("", nil) != nil || CodeOf(nil) != "" || GRPC("") != codes.OK || HTTP("") != 200 {
		t.Error("success became an error")
	}
}

func TestForeignErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fault.Code
	}{
		{context.DeadlineExceeded, fault.DeadlineExceeded},
		{fmt.Errorf("read: %w", context.Canceled), fault.Canceled},
		{errors.New("disk on fire"), fault.Internal},
		{status.Error(codes.Unavailable, "connection refused"), fault.Unavailable},
		{status.Error(codes.Unimplemented, "unknown method"), fault.Unsupported},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (30 vs. 20)"), fault.MessageTooLarge},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
	f := Fault(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (30 vs. 20)"))
	if f.Details["actual"] != "30" || f.Details["limit"] != "20" {
		t.Errorf("details %v", f.Details)
	}
	if m := Message(errors.New("open /data/secret")); strings.Contains(m, "secret") {
		t.Errorf("message %q", m)
	}
}

// docs/errors.md says what the code does.
func TestDocumentedMapping(t *testing.T) {
	text, err := os.ReadFile("../../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[fault.Code]bool{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([A-Z_]+) \\| (\\d+)")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		code := fault.Code(m[1])
		documented[code] = true
		var want codes.Code
		if err := want.UnmarshalJSON([]byte(strconv.Quote(m[2]))); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		if _, known := rows[code]; !known || GRPC(code) != want || strconv.Itoa(HTTP(code)) != m[3] {
			t.Errorf("%s is documented as %s and %s", code, m[2], m[3])
		}
	}
	for _, code := range Codes() {
		if !documented[code] {
			t.Errorf("%s is not documented", code)
		}
	}
}

// A code without a row would be answered as internal.
func TestEveryFaultHasARow(t *testing.T) {
	text, err := os.ReadFile("../../fault/fault.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\t\w+ +(?:Code )?= "([a-z_]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(found) < 20 {
		t.Fatalf("%d codes found", len(found))
	}
	for _, m := range found {
		if _, ok := rows[fault.Code(m[1])]; !ok {
			t.Errorf("%s has no row", m[1])
		}
	}
}
