package rest

import (
	"encoding/json"
	"strings"
	"testing"

	"kvstore/internal/fault"
)

const txnPath = "/api/v1/transaction"

type txnAnswer struct {
	Succeeded bool
	Revision  string
	Results   []struct {
		Type, Key string
		Version   uint64
		Revision  string
		Existed   *bool
		Record    *record
		Error     *problem
	}
}

func (f *fixture) transaction(kind, body string) txnAnswer {
	f.t.Helper()
	_, text := f.expect(200, call{"POST", txnPath, []string{"Content-Type: " + kind}, body})
	var a txnAnswer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		f.t.Fatalf("%v: %s", err, text)
	}
	return a
}

// S3.9, S3.16: the example of the requirements, and compare-then-else, in both
// languages.
func TestTransaction(t *testing.T) {
	f := newFixture(t)
	f.put("user:{1}:temp", "x")
	a := f.transaction("application/json", `{"operations":[{"type":"PUT","key":"user:{1}:profile","value":"p","conditions":{"if_version_match":0}},
		{"type":"DELETE","key":"user:{1}:temp"},{"type":"PUT","key":"user:{1}:last_login","value":"now","ttl_seconds":86400}]}`)
	if !a.Succeeded || len(a.Results) != 3 || a.Revision == "0" {
		t.Fatalf("%+v", a)
	}
	if r := a.Results[1]; r.Type != "DELETE" || r.Existed == nil || !*r.Existed || r.Revision == "" {
		t.Errorf("delete: %+v", r)
	}
	if r := a.Results[2]; r.Type != "PUT" || r.Key != "user:{1}:last_login" || r.Version != 1 || r.Revision == "" {
		t.Errorf("put: %+v", r)
	}
	yaml := "checks:\n  - {key: 'user:{1}:profile', version_match: 1}\nthen:\n  - {type: GET, key: 'user:{1}:profile'}\n  - type: PUT\n    key: user:{1}:profile\n    value: q\notherwise:\n  - {type: GET, key: 'user:{1}:profile'}\n  - {type: GET, key: none}\n"
	if a = f.transaction("application/yaml; charset=utf-8", yaml); !a.Succeeded || *a.Results[0].Record.Value != "p" || a.Results[1].Version != 2 {
		t.Fatalf("%+v", a)
	}
	if a = f.transaction("application/yaml", yaml); a.Succeeded || a.Revision != "0" || *a.Results[0].Record.Value != "q" || a.Results[1].Error.Code != fault.NotFound {
		t.Fatalf("%+v", a)
	}
}

// A condition of the list that does not hold is a problem, as it is for one key.
func TestTransactionConditionFails(t *testing.T) {
	f := newFixture(t)
	f.put("k", "v")
	_, body := f.expect(412, call{method: "POST", target: txnPath,
		body: `{"operations":[{"type":"PUT","key":"new","value":"v"},{"type":"PUT","key":"k","value":"w","conditions":{"if_version_match":5}}]}`})
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Code != fault.ConditionFailed || p.Details["item"] != "1" || p.Details["list"] != "then" || p.Details["key"] != "k" {
		t.Fatalf("%v: %s", err, body)
	}
	f.expect(404, call{method: "GET", target: "/api/v1/keys/new"})
}

func TestBadTransactions(t *testing.T) {
	for name, c := range map[string]struct {
		kind, body string
		want       int
	}{
		"other type":          {"text/plain", `{}`, 415},
		"encoded YAML":        {"application/yaml\nContent-Encoding: gzip", `a: 1`, 415},
		"empty":               {"application/json", ``, 400},
		"empty YAML":          {"application/yaml", ``, 400},
		"not YAML":            {"application/yaml", `[`, 400},
		"unknown member":      {"application/yaml", "then:\n- {type: PUT, key: k, value: v, ttl: 5}", 400},
		"unknown member JSON": {"application/json", `{"if":[]}`, 400},
		"anchors":             {"application/yaml", "a: &a [x]\nb: *a", 400},
		"no type":             {"application/json", `{"then":[{"key":"k"}]}`, 400},
		"number as value":     {"application/yaml", "then:\n- {type: PUT, key: k, value: 5}", 400},
		"half a surrogate":    {"application/json", `{"then":[{"type":"GET","key":"\ud800"}]}`, 400},
		"namespaces":          {"application/json", `{"namespace":"other","then":[{"type":"GET","key":"k"}]}`, 400},
		"too large":           {"application/yaml", strings.Repeat(" ", maxBatchBody+1), 413},
	} {
		t.Run(name, func(t *testing.T) {
			headers := strings.Split("Content-Type: "+c.kind, "\n")
			newFixture(t).expect(c.want, call{"POST", txnPath + "?namespace=default", headers, c.body})
		})
	}
}
