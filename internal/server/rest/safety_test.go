package rest

import (
	"context"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
)

// A header that protects a write is honoured or refused, never ignored.
func TestSafetyHeadersAreNotIgnored(t *testing.T) {
	const fence, id = "X-Kvstore-Fence: n/lock@7", "Request-Id: 0123456789abcdefghijklmnop"
	for _, c := range []struct{ method, target, header, body string }{
		{"PATCH", "/api/v1/keys/k?persist", fence, ""},
		{"PATCH", "/api/v1/keys/k?persist", id, ""},
		{"DELETE", "/api/v1/keys?prefix=k", fence, ""},
		{"DELETE", "/api/v1/keys?prefix=k", id, ""},
		{"DELETE", "/api/v1/keys?prefix=k", "If-Match: *", ""},
		{"POST", "/api/v1/namespaces", id, `{"name":"n"}`},
		{"DELETE", "/api/v1/namespaces/n", fence, ""},
		{"POST", "/api/v1/leases", id, `{"ttl_seconds":30}`},
		{"POST", "/api/v1/batch/put", "If-Match: *", `{"items":[{"key":"k","value":"v"}]}`},
		{"POST", "/api/v1/transaction", "If-None-Match: *", `{"then":[{"type":"PUT","key":"k","value":"v"}]}`},
	} {
		name, _, _ := strings.Cut(c.header, ":")
		p := newFixture(t).problem(400, call{c.method, c.target, []string{c.header}, c.body})
		if p.Details["header"] != name || !strings.Contains(p.Detail, name) {
			t.Errorf("%s %s with %s: %+v", c.method, c.target, name, p)
		}
	}
	f := newFixture(t) // reads are not writes
	f.put("k", "v")
	f.expect(200, call{"GET", "/api/v1/keys/k", []string{id, fence}, ""})
	f.expect(200, call{"POST", "/api/v1/batch/get", []string{id}, `{"keys":["k"]}`})
}

// A header that is there and empty comes from a variable that is not set: the
// write must not run without its protection.
func TestEmptySafetyHeadersAreRefused(t *testing.T) {
	for _, header := range []string{"X-Kvstore-Fence", "Request-Id", "X-Kvstore-Lease", "X-Kvstore-Ttl", "X-Kvstore-Expires-At"} {
		p := newFixture(t).problem(400, call{"PUT", "/api/v1/keys/k", []string{header + ": "}, "v"})
		if p.Details["header"] != header {
			t.Errorf("%s: %+v", header, p)
		}
	}
	for _, c := range []call{
		{"DELETE", "/api/v1/keys/k", []string{"X-Kvstore-Fence: "}, ""},
		{"POST", "/api/v1/batch/put", []string{"X-Kvstore-Fence: "}, `{"items":[{"key":"k","value":"v"}]}`},
		{"POST", "/api/v1/batch/delete", []string{"Request-Id: "}, `{"keys":["k"],"atomic":true}`},
		{"POST", "/api/v1/transaction", []string{"Request-Id: "}, `{"then":[{"type":"PUT","key":"k","value":"v"}]}`},
		{"PUT", "/api/v1/keys/k?lease=", nil, "v"},
		{"POST", "/api/v1/batch/put", nil, `{"items":[{"key":"k","value":"v","lease":""}]}`},
		{"POST", "/api/v1/transaction", nil, `{"fence":"","then":[{"type":"PUT","key":"k","value":"v"}]}`},
		{"POST", "/api/v1/transaction", []string{"X-Kvstore-Fence: n/lock@7"}, `{"fence":"n/lock@8","then":[{"type":"PUT","key":"k","value":"v"}]}`},
		{"PUT", "/api/v1/keys/k", []string{"Request-Id: 0123456789abcdefghijklmnop", "Request-Id: 0123456789abcdefghijklmnoq"}, "v"},
	} {
		newFixture(t).problem(400, c)
	}
}

// The fence of a transaction may be in its body.
func TestFenceOfTheBody(t *testing.T) {
	f := newFixture(t)
	var seen *api.Fence
	f.backend.Fail = func(_ context.Context, op *api.PipelineOp) error {
		seen = op.GetTransaction().GetFence()
		return nil
	}
	for _, headers := range [][]string{nil, {"X-Kvstore-Fence: n/a%2Flock@8"}} {
		f.expect(200, call{"POST", "/api/v1/transaction", headers, `{"fence":"n/a%2Flock@8","then":[{"type":"PUT","key":"k","value":"v"}]}`})
		if seen.GetNamespace() != "n" || seen.GetKey() != "a/lock" || seen.GetRevision() != 8 {
			t.Errorf("%v: %v", headers, seen)
		}
	}
}
