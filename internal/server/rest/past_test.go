package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// What at names reaches the backend, in every read that takes it.
func TestAt(t *testing.T) {
	f := newFixture(t)
	f.put("k", "v")
	var rev uint64
	var ms int64
	f.backend.Fail = func(_ context.Context, op *api.PipelineOp) error {
		rev, ms = op.GetGet().GetAtRevision(), op.GetGet().GetAtTimeMs()
		if b := op.GetBatchGet(); b != nil {
			rev, ms = b.AtRevision, b.AtTimeMs
		}
		return nil
	}
	for at, want := range map[string]struct {
		rev uint64
		ms  int64
	}{"117964800000000001": {117964800000000001, 0}, "1800000000000": {0, 1800000000000}, "2027-01-15T08:00:00Z": {0, 1800000000000}, "-5m": {0, -300000}} {
		for _, c := range []call{{method: "GET", target: "/api/v1/keys/k?at=" + at}, {method: "HEAD", target: "/api/v1/keys/k?at=" + at},
			{method: "POST", target: "/api/v1/batch/get?at=" + at, body: `{"keys":["k"]}`}} {
			rev, ms = 0, 0
			f.expect(200, c)
			if rev != want.rev || ms != want.ms {
				t.Errorf("%s %s: revision %d, time %d", c.method, c.target, rev, ms)
			}
		}
	}
	for _, c := range []call{{method: "GET", target: "/api/v1/keys/k?at=5m"}, {method: "GET", target: "/api/v1/keys/k?at="},
		{method: "GET", target: "/api/v1/keys/k?at=-5m&at_revision=7"}, {method: "GET", target: "/api/v1/keys?at=x"},
		{method: "POST", target: "/api/v1/batch/get?at=x", body: `{"keys":["k"]}`}} {
		if p := f.problem(400, c); p.Code != fault.InvalidArgument {
			t.Errorf("%s: %+v", c.target, p)
		}
	}
}

func TestHistory(t *testing.T) {
	f := newFixture(t)
	f.put("a/b", "v")
	res, body := f.expect(200, call{method: "GET", target: "/api/v1/history/a%2Fb?limit=1&keys_only"})
	var page versions
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Versions) != 1 || page.Versions[0].Record == nil || page.Versions[0].Record.Value != nil || page.Next == nil || page.Floor != 7 {
		t.Fatalf("first page %s", body)
	}
	next, _, _ := strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	_, body = f.expect(200, call{method: "GET", target: next})
	page = versions{}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	if v := page.Versions; len(v) != 1 || !v[0].Deleted || v[0].Reason != "expired" || v[0].Record != nil || page.Next != nil {
		t.Fatalf("second page %s of %s", body, next)
	}
}

func TestDeleteRange(t *testing.T) {
	f := newFixture(t)
	f.put("user:1", "v")
	f.put("user:2", "v")
	f.put("z", "v")
	res, body := f.expect(http.StatusAccepted, call{method: "DELETE", target: "/api/v1/keys?prefix=user:"})
	if got := res.Header.Get("Location"); got != "/api/v1/jobs/range-1" || !strings.Contains(body, `"prefix":"user:"`) || !strings.Contains(body, `"done":2`) {
		t.Errorf("Location %q, %s", got, body)
	}
	f.expect(404, call{method: "GET", target: "/api/v1/keys/user:1"})
	f.expect(200, call{method: "GET", target: "/api/v1/keys/z"})
	for _, target := range []string{"/api/v1/keys", "/api/v1/keys?namespace=default", "/api/v1/keys?all=maybe", "/api/v1/keys?tag=x", "/api/v1/keys?limit=5"} {
		if p := f.problem(400, call{method: "DELETE", target: target}); p.Code != fault.InvalidArgument {
			t.Errorf("%s: %+v", target, p)
		}
	}
	if _, body := f.expect(200, call{method: "GET", target: "/api/v1/jobs"}); !strings.Contains(body, `{"jobs":[{"id":"range-1","kind":"delete-range","state":"running"`) {
		t.Errorf("jobs %s", body)
	}
	if res, body := f.expect(202, call{method: "DELETE", target: "/api/v1/jobs/range-1"}); !strings.Contains(body, "cancelling") || res.Header.Get("Location") == "" {
		t.Errorf("cancelled %s", body)
	}
}
