package rest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
)

// raw sends one request as it is written, which no HTTP client would.
func raw(t *testing.T, addr, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// The key is everything after the prefix, decoded once and never cleaned.
func TestKeysAreTakenFromThePathAsSent(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for path, key := range map[string]string{
		"a": "a", "a/b/c": "a/b/c", "a%2Fb": "a/b", "..": "..", "../../etc": "../../etc", "a/../b": "a/../b", "%2e%2e/x": "../x",
		"a//b": "a//b", "/a": "/a", "//": "//", "a/": "a/", ".": ".", "%20": " ", "a+b": "a+b", "%2B": "+", "gr%C3%BC%C3%9Fe": "grüße",
		"grüße": "grüße", "%00": "\x00", "%25": "%", "%2525": "%25", "a%3Fb": "a?b", "%23": "#", "a;b=c": "a;b=c", "a:b@c": "a:b@c",
		"{tag}x": "{tag}x", "%F0%9F%98%80": "😀", "http://x/y": "http://x/y",
	} {
		code, body := raw(t, addr, fmt.Sprintf("PUT /api/v1/keys/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nv", path))
		if code != http.StatusCreated && code != http.StatusNoContent {
			t.Errorf("PUT %s: status %d %s", path, code, body)
			continue
		}
		got, err := f.server.do(t.Context(), &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: key}}})
		if err != nil {
			t.Errorf("PUT %s did not write %q: %v", path, key, err)
		} else if got.GetGet().GetRecord().GetKey() != key {
			t.Errorf("PUT %s wrote %q", path, got.GetGet().GetRecord().GetKey())
		}
		if code, body := raw(t, addr, fmt.Sprintf("GET /api/v1/keys/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)); body != "v" {
			t.Errorf("GET %s: status %d %q", path, code, body)
		}
	}
}

// Another spelling of the prefix is another path.
func TestPrefixIsNotDecoded(t *testing.T) {
	f := newFixture(t)
	for _, target := range []string{"/api/v1/keys%2Fk", "/api%2Fv1/keys/k", "/api/v1/../v1/keys/k", "//api/v1/keys/k", "/api/v1/%6Beys/k"} {
		f.expect(404, call{method: "GET", target: target})
	}
}

// A body that never comes is 408, and nothing is executed.
func TestSlowBodyTimesOut(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	code, body := raw(t, srv.Listener.Addr().String(),
		"PUT /api/v1/keys/k?timeout_ms=30 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	if code != http.StatusRequestTimeout || !strings.Contains(body, `"code":"deadline_exceeded"`) {
		t.Errorf("status %d: %s", code, body)
	}
	f.expect(404, call{method: "GET", target: "/api/v1/keys/k"})
}

// A declared length over the limit is refused before the body is sent.
func TestExpectContinueIsRefusedEarly(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	code, body := raw(t, srv.Listener.Addr().String(),
		"PUT /api/v1/keys/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 20000000\r\n\r\n")
	if code != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"actual_bytes":"20000000"`) {
		t.Errorf("status %d: %s", code, body)
	}
}

func TestChunkedBodyOverTheLimit(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/api/v1/keys/k", io.LimitReader(zeroes{}, 16<<20+1))
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), `more than 16777216`) {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }
