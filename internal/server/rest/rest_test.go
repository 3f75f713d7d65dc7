package rest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kvstore/internal/guard"
	"kvstore/internal/metrics"
	"kvstore/internal/server/servertest"
)

// fixture is a server over a map.
type fixture struct {
	t       *testing.T
	backend *servertest.Backend
	server  *Server
	ready   bool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, backend: servertest.New(), ready: true}
	m := metrics.New("test")
	s, err := New(Options{
		Backend: f.backend, Guard: guard.New(guard.Options{Metrics: m.Requests()}), Metrics: m.Handler(), Leases: f.backend.Leases(),
		Ready: func() (bool, string) { return f.ready, "no leader in group 3" },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.server = s
	return f
}

// call is one request; headers are "Name: value".
type call struct {
	method, target string
	headers        []string
	body           string
}

func (f *fixture) do(c call) *http.Response {
	f.t.Helper()
	r := httptest.NewRequestWithContext(f.t.Context(), c.method, c.target, strings.NewReader(c.body))
	for _, h := range c.headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w.Result()
}

// answer is a response whose body was read.
type answer struct{ Header http.Header }

// expect runs c, checks the status and returns the header and the body.
func (f *fixture) expect(code int, c call) (answer, string) {
	f.t.Helper()
	res := f.do(c)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if res.StatusCode != code {
		f.t.Fatalf("%s %s: status %d, want %d\n%s", c.method, c.target, res.StatusCode, code, body)
	}
	if code >= 400 && c.method != http.MethodHead {
		f.checkProblem(res, string(body))
	}
	return answer{res.Header}, string(body)
}

// problem runs c and returns the problem it ends with.
func (f *fixture) problem(code int, c call) problem {
	f.t.Helper()
	_, body := f.expect(code, c)
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// checkProblem holds for every error (RFC 9457).
func (f *fixture) checkProblem(res *http.Response, body string) {
	f.t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		f.t.Fatalf("error is no JSON: %v\n%s", err, body)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		f.t.Errorf("content type %q of an error", ct)
	}
	if p.Status != res.StatusCode || p.Code == "" || p.Title == "" || p.Detail == "" || p.Type != "urn:kvstore:error:"+string(p.Code) {
		f.t.Errorf("incomplete problem: %s", body)
	}
	if res.Header.Get("ETag") != "" {
		f.t.Error("an error has an ETag")
	}
}

func (f *fixture) put(key, value string, headers ...string) string {
	f.t.Helper()
	res := f.do(call{"PUT", keysPath + "/" + key, headers, value})
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusNoContent {
		f.t.Fatalf("put %s: status %d", key, res.StatusCode)
	}
	return res.Header.Get("ETag")
}

func failWith(err error) func(string) error { return func(string) error { return err } }
