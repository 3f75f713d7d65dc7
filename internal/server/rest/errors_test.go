package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/metrics"
	"kvstore/internal/server/servertest"
	"kvstore/internal/server/status"
)

// Every code becomes its HTTP status, with its details and retry hint.
func TestEveryCodeIsAProblem(t *testing.T) {
	f := newFixture(t)
	for _, code := range status.Codes() {
		f.backend.Fail = func(context.Context, *api.PipelineOp) error {
			return fmt.Errorf("group 3: %w", fault.New(code, "what was wrong", "limit", 5, "actual", 6).WithRetry(1500*time.Millisecond))
		}
		p := f.problem(status.HTTP(code), call{method: "GET", target: "/api/v1/keys/k"})
		if p.Code != code || p.Details["limit"] != "5" || p.Details["actual"] != "6" || p.RetryAfterMS != 1500 || p.Title != status.Title(code) {
			t.Errorf("%s: %+v", code, p)
		}
		res, _ := f.expect(status.HTTP(code), call{method: "GET", target: "/api/v1/keys/k"})
		if got := res.Header.Get("Retry-After"); got != "2" {
			t.Errorf("%s: Retry-After %q, want whole seconds, rounded up", code, got)
		}
	}
}

// The inside of an internal error stays in the log.
func TestInternalErrorsHideTheirCause(t *testing.T) {
	f := newFixture(t)
	f.backend.Fail = func(context.Context, *api.PipelineOp) error {
		return fault.Wrap(fault.Internal, fmt.Errorf("open /data/secret"), "internal error")
	}
	if p := f.problem(500, call{method: "GET", target: "/api/v1/keys/k"}); strings.Contains(p.Detail, "secret") {
		t.Errorf("detail %q", p.Detail)
	}
	f.backend.Fail = func(context.Context, *api.PipelineOp) error { panic("secret") }
	if p := f.problem(500, call{method: "GET", target: "/api/v1/keys/k"}); strings.Contains(p.Detail, "secret") || p.Code != fault.Internal {
		t.Errorf("panic: %+v", p)
	}
}

// ASKS I1: overload is 429 with Retry-After, and health is still answered.
func TestOverload(t *testing.T) {
	b := servertest.New()
	entered, leave := make(chan struct{}), make(chan struct{})
	b.Fail = func(context.Context, *api.PipelineOp) error { close(entered); <-leave; return nil }
	s, err := New(Options{
		Backend: b, Guard: guard.New(guard.Options{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Nanosecond}),
		Metrics: metrics.New("test").Handler(), Ready: func() (bool, string) { return true, "" },
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, backend: b, server: s}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.put("k", "v")
	}()
	<-entered
	res, body := f.expect(http.StatusTooManyRequests, call{method: "GET", target: "/api/v1/keys/k"})
	if res.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"limit":"1"`) {
		t.Errorf("headers %v: %s", res.Header, body)
	}
	f.expect(200, call{method: "GET", target: "/healthz"})
	f.expect(200, call{method: "GET", target: "/readyz"})
	close(leave)
	<-done
}

func TestReadiness(t *testing.T) {
	f := newFixture(t)
	f.ready = false
	if p := f.problem(503, call{method: "GET", target: "/readyz"}); p.Detail != "not ready: no leader in group 3" {
		t.Errorf("%+v", p)
	}
	f.expect(200, call{method: "HEAD", target: "/healthz"})
}

func TestUnauthenticated(t *testing.T) {
	for name, authenticate := range map[string]guard.Authenticator{
		"refused": func(_ context.Context, c guard.Credentials) (string, error) {
			return "", fault.New(fault.Unauthenticated, "who are you?", "saw", c.Authorization)
		},
		"reserved name": func(context.Context, guard.Credentials) (string, error) { return "_system", nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.server.o.Guard = guard.New(guard.Options{Authenticate: authenticate})
			res, _ := f.expect(401, call{method: "GET", target: "/api/v1/keys/k"})
			if res.Header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
			f.expect(200, call{method: "GET", target: "/healthz"})
		})
	}
}
