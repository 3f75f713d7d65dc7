package ctl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"kvstore/internal/ctl/memserver"
	"kvstore/internal/ctl/target"
	"kvstore/internal/node/nodetest"
)

func TestTxnNull(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	t.Setenv(target.EnvEndpoints, s.Addr)
	kvctl("", "put", "a", "1\n2")
	r := kvctl(`{"then":[{"type":"GET","key":"a"},{"type":"GET","key":"none"},{"type":"GET","key":"a"}]}`, "txn", "-o", "raw", "--null")
	if r.out != "1\n2\x001\n2\x00" || r.code != exitNotFound {
		t.Fatalf("%+v", r)
	}
}

// What protects a transaction reaches the cluster: the fence, from the document or
// the flag, the lease of a put, checks among the operations and every condition.
func TestTxnProtections(t *testing.T) {
	isolate(t)
	n := nodetest.Start(t, 3)
	t.Setenv(target.EnvEndpoints, n.GRPC)
	var lock struct {
		CreatedRevision string `json:"created_revision"`
	}
	kvctl("", "lease", "grant", "--id", "{t}l")
	kvctl("", "put", "{t}lock", "me", "--lease", "{t}l")
	if err := json.Unmarshal([]byte(kvctl("", "get", "{t}lock", "-o", "json").out), &lock); err != nil {
		t.Fatal(err)
	}
	held, lost := "default/%7Bt%7Dlock@"+lock.CreatedRevision, "default/%7Bt%7Dlock@7"
	put := `"then":[{"type":"PUT","key":"{t}a","value":"1","lease":"{t}l"}]`
	for _, c := range []struct {
		document string
		args     []string
		want     int
	}{
		{"{" + put + "}", []string{"--fence", lost}, exitCondition},
		{"{" + put + "}", []string{"--fence", ""}, exitUsage},
		{"{" + put + "}", []string{"--fence", "lock"}, exitUsage},
		{fmt.Sprintf(`{"fence":%q,%s}`, lost, put), nil, exitCondition},
		{fmt.Sprintf(`{"fence":%q,%s}`, lost, put), []string{"--fence", held}, exitUsage},
		{fmt.Sprintf(`{"fence":"",%s}`, put), nil, exitUsage},
		{fmt.Sprintf(`{"request_id":"",%s}`, put), nil, exitUsage},
		{`{"then":[{"type":"PUT","key":"{t}a","value":"1","lease":""}]}`, nil, exitUsage},
		{`{"then":[{"type":"PUT","key":"{t}a","value":"1"},{"type":"CHECK","key":"{t}lock","conditions":{"version_match":9}}]}`, nil, exitCondition},
		{`{"checks":[{"key":"{t}lock","created_match":"7"}],` + put + `}`, nil, exitCondition},
		{`{"checks":[{"key":"{t}lock","lease_match":"{t}other"}],` + put + `}`, nil, exitCondition},
	} {
		if r := kvctl(c.document, append([]string{"txn"}, c.args...)...); r.code != c.want {
			t.Errorf("%s %v: %+v", c.document, c.args, r)
		}
	}
	if r := kvctl("", "get", "{t}a"); r.code != exitNotFound {
		t.Fatalf("a write happened without its protection: %+v", r)
	}
	if r := kvctl("{"+put+"}", "txn", "--fence", held); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := kvctl(`{"then":[{"type":"CHECK","key":"{t}a","conditions":{"lease_match":"{t}l"}}]}`, "txn"); r.code != 0 || !strings.Contains(r.out, "CHECK") {
		t.Fatalf("the lease of the put is lost: %+v", r)
	}
}
