package rest

import (
	"encoding/json"
	"testing"

	"kvstore/internal/fault"
)

func leaseExercises() []exercise {
	const path, op = "/api/v1/leases", " /api/v1/leases/{id}"
	granted := func(f *fixture) {
		f.expect(201, call{method: "POST", target: path, body: `{"id":"l","ttl_seconds":5}`})
	}
	all := []exercise{
		{"GET /api/v1/leases", 200, call{method: "GET", target: path}, granted},
		{"GET /api/v1/leases", 400, call{method: "GET", target: path + "?limit=1001"}, nil},
		{"POST /api/v1/leases", 201, call{method: "POST", target: path, body: `{"ttl_seconds":5}`}, nil},
		{"POST /api/v1/leases", 400, call{method: "POST", target: path, body: `{"ttl_seconds":0}`}, nil},
		{"POST /api/v1/leases", 409, call{method: "POST", target: path, body: `{"id":"l","ttl_seconds":5}`}, granted},
	}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		all = append(all,
			exercise{method + op, 200, call{method: method, target: path + "/l"}, granted},
			exercise{method + op, 400, call{method: method, target: path + "/a%20b"}, nil},
			exercise{method + op, 404, call{method: method, target: path + "/none"}, nil})
	}
	return all
}

func TestLeases(t *testing.T) {
	f := newFixture(t)
	const path = "/api/v1/leases"
	read := func(body string) (l lease) {
		t.Helper()
		if err := json.Unmarshal([]byte(body), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	res, body := f.expect(201, call{method: "POST", target: path, body: `{"id":"{jobs}1","ttl_seconds":5}`})
	l := read(body)
	if l.ID != "{jobs}1" || l.TTLSeconds != 5 || l.RemainingMS != 5000 || l.ExpiresAt == "" || l.Revision == 0 ||
		res.Header.Get("Location") != path+"/%7Bjobs%7D1" {
		t.Errorf("%s, %v", body, res.Header)
	}
	_, body = f.expect(200, call{method: "GET", target: path + "/%7Bjobs%7D1?keys"})
	if got := read(body); got.ID != l.ID || got.Revision != l.Revision {
		t.Errorf("%s", body)
	}
	_, body = f.expect(200, call{method: "POST", target: path + "/%7Bjobs%7D1"})
	if got := read(body); got.Revision != l.Revision || got.RemainingMS != 5000 {
		t.Errorf("%s", body)
	}
	if _, body = f.expect(200, call{method: "DELETE", target: path + "/%7Bjobs%7D1"}); body != `{"deleted":0}`+"\n" {
		t.Errorf("%q", body)
	}
	if p := f.problem(404, call{method: "POST", target: path + "/%7Bjobs%7D1"}); p.Code != fault.LeaseNotFound || p.Details["lease"] != l.ID {
		t.Errorf("%+v", p)
	}
	for body, detail := range map[string]string{`{"ttl_seconds":86401}`: "limit", `{"ttl_seconds":1,"id":"a b"}`: "offset", `{}`: "limit_min"} {
		if p := f.problem(400, call{method: "POST", target: path, body: body}); p.Details[detail] == "" {
			t.Errorf("%s: %+v", body, p)
		}
	}
}

func TestLeaseAndFenceOfWrites(t *testing.T) {
	f := newFixture(t)
	f.put("k", "v", "X-Kvstore-Lease: l")
	res, _ := f.expect(200, call{method: "GET", target: "/api/v1/keys/k"})
	if res.Header.Get(headerLease) != "l" || res.Header.Get(headerCreatedRevision) == "" {
		t.Errorf("%v", res.Header)
	}
	f.expect(204, call{method: "PUT", target: "/api/v1/keys/k?lease=m&lease_match=l&created_match=" + res.Header.Get(headerCreatedRevision)})
	f.expect(412, call{method: "PUT", target: "/api/v1/keys/k?lease_match=l"})
	for _, fence := range []string{"x", "default/k", "default/@1", "default/k@0", "default/k@x", "/k@1", "default/%zz@1"} {
		c := call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Fence: " + fence}, "v"}
		if p := f.problem(400, c); p.Details["header"] != headerFence {
			t.Errorf("%q: %+v", fence, p)
		}
	}
}
