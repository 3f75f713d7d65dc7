package rest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequest sends arbitrary requests to the handlers: none panics, every
// error is a complete problem, and none of them is the server's fault.
func FuzzRequest(f *testing.F) {
	f.Add("PUT", "/api/v1/keys/a%2F..//b", "ttl_seconds=5&must_not_exist", "If-Match", `W/"abc", "x-j"`, "value")
	f.Add("GET", "/api/v1/keys", "prefix=a&limit=3&tag=a%3Db", "Accept", "application/json;q=0.1, */*", "")
	f.Add("POST", "/api/v1/batch/put", "namespace=default", "Content-Type", "application/json", `{"items":[{"key":"\ud83d\ude00","value_base64":"_-8"}]}`)
	f.Add("POST", "/api/v1/batch/delete", "", "Content-Type", "application/json", `{"items":[{"key":"a","condition":{"revision_match":"5"}}]}`)
	f.Add("PUT", "/api/v1/keys/%F0%9F%98%80", "expires_at=2027-01-31T12:00:00Z", "X-Kvstore-Tags", "a=1&b=%C3%A9", "v")
	f.Add("DELETE", "/api/v1/keys/\xff", "value_equals_base64=YQ", "If-None-Match", "*", "")
	f.Fuzz(func(t *testing.T, method, path, query, header, value, body string) {
		u, err := url.ParseRequestURI("/" + strings.TrimPrefix(path, "/"))
		if err != nil || method == "" || strings.ContainsAny(method, " \r\n") {
			return // net/http refuses these before any handler
		}
		u.RawQuery = query
		r := &http.Request{
			Method: method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "192.0.2.1:1",
		}
		r.Header.Set(header, value)
		w := httptest.NewRecorder()
		newFixture(t).server.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code < 400 {
			return
		}
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Code == "" || p.Detail == "" {
			t.Fatalf("status %d with body %q", w.Code, w.Body)
		}
		if w.Code >= 500 {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
