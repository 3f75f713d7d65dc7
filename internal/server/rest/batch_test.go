package rest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"kvstore/internal/fault"
)

func TestBatches(t *testing.T) {
	f := newFixture(t)
	_, body := f.expect(200, call{"POST", "/api/v1/batch/put", []string{"Content-Type: application/json; charset=utf-8"},
		`{"items":[{"key":"a","value":"x\ud83d\ude00","tags":{"t":"1"},"ttl_seconds":5},{"key":"b","value_base64":"/wA="},
		{"key":"a","value":"y","condition":{"must_not_exist":true}},{"key":"b","value":"z","condition":{"version_match":1,"revision_match":"1"}}]}`})
	var puts struct {
		Results []struct {
			Key     string
			Error   *problem
			Version uint64
			ETag    string
		}
	}
	if err := json.Unmarshal([]byte(body), &puts); err != nil || len(puts.Results) != 4 {
		t.Fatalf("%v: %s", err, body)
	}
	for i, failed := range []bool{false, false, true, true} {
		r := puts.Results[i]
		if (r.Error != nil) != failed || !failed && (r.Version != 1 || r.ETag == "") || failed && r.Error.Code != fault.ConditionFailed {
			t.Errorf("item %d: %+v", i, r)
		}
	}
	_, body = f.expect(200, call{method: "POST", target: "/api/v1/batch/get", body: `{"keys":["a","b","c"]}`})
	for _, want := range []string{`"value":"x😀"`, `"value_base64":"/wA="`, `"code":"not_found"`, `"tags":{"t":"1"}`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	_, body = f.expect(200, call{method: "POST", target: "/api/v1/batch/get", body: `{"keys":["a"],"keys_only":true}`})
	if strings.Contains(body, "value") || !strings.Contains(body, `"size":5`) {
		t.Errorf("keys_only: %s", body)
	}
	_, body = f.expect(200, call{method: "POST", target: "/api/v1/batch/delete", body: `{"keys":["a"],"items":[{"key":"b","condition":{"value_equals":"no"}}]}`})
	if !strings.Contains(body, `"existed":true`) || !strings.Contains(body, `"condition_failed"`) {
		t.Errorf("delete: %s", body)
	}
}

func TestBadBatches(t *testing.T) {
	for name, c := range map[string]struct {
		path, kind, body string
		want             int
	}{
		"other type":       {"put", "text/plain", `{}`, 415},
		"no type at all":   {"put", "garbage;;", `{}`, 415},
		"empty":            {"put", "", ``, 400},
		"not JSON":         {"put", "", `{`, 400},
		"unknown member":   {"put", "", `{"items":[{"key":"k","value":"v","ttl":5}]}`, 400},
		"more after it":    {"put", "", `{"items":[]} {}`, 400},
		"not UTF-8":        {"put", "", "{\"items\":[{\"key\":\"\xff\",\"value\":\"v\"}]}", 400},
		"half a surrogate": {"put", "", `{"items":[{"key":"\ud800","value":"v"}]}`, 400},
		"no value":         {"put", "", `{"items":[{"key":"k"}]}`, 400},
		"two values":       {"put", "", `{"items":[{"key":"k","value":"a","value_base64":"YQ=="}]}`, 400},
		"bad base64":       {"put", "", `{"items":[{"key":"k","value_base64":"!"}]}`, 400},
		"bad checksum":     {"put", "", `{"items":[{"key":"k","value":"v","checksum":"1"}]}`, 400},
		"bad expiry":       {"put", "", `{"items":[{"key":"k","value":"v","expires_at":"soon"}]}`, 400},
		"bad revision":     {"put", "", `{"items":[{"key":"k","value":"v","condition":{"revision_match":"x"}}]}`, 400},
		"wrong shape":      {"get", "", `{"keys":"k"}`, 400},
		"too large":        {"get", "", strings.Repeat(" ", maxBatchBody+1), 413},
	} {
		t.Run(name, func(t *testing.T) {
			var h []string
			if c.kind != "" {
				h = []string{"Content-Type: " + c.kind}
			}
			newFixture(t).expect(c.want, call{"POST", "/api/v1/batch/" + c.path, h, c.body})
		})
	}
}

func TestListPages(t *testing.T) {
	f := newFixture(t)
	for _, k := range []string{"p/a", "p/b", "p/c", "q"} {
		f.put(k, k, "X-Kvstore-Tags: first="+string(k[len(k)-1]))
	}
	var keys []string
	for target := "/api/v1/keys?prefix=p/&limit=2"; target != ""; {
		res, body := f.expect(200, call{method: "GET", target: target})
		var p page
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			keys = append(keys, r.Key)
		}
		target = ""
		if link := res.Header.Get("Link"); link != "" {
			target = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		}
		if (p.Token != "") != (target != "") {
			t.Errorf("token %q and link %q", p.Token, target)
		}
	}
	if got := strings.Join(keys, " "); got != "p/a p/b p/c" {
		t.Errorf("keys %s", got)
	}
	for query, want := range map[string]string{
		"count_only": `"count":4`, "reverse&limit=1&keys_only": `"key":"q"`, "tag=first%3Db": `"key":"p/b"`,
		"start=p/c&end=q": `"key":"p/c"`, "prefix=none": `"records":[]`,
		"consistency=snapshot": `"consistency":"snapshot","age_ms":0`, "keys_only": `"consistency":"linearizable"`,
		"consistency=bounded_staleness&max_staleness_ms=500": `"consistency":"bounded_staleness"`,
	} {
		if _, body := f.expect(200, call{method: "GET", target: "/api/v1/keys?" + query}); !strings.Contains(body, want) {
			t.Errorf("%s: no %s in %s", query, want, body)
		}
	}
	for _, query := range []string{"limit=0", "limit=x", "limit=-1", "tag=x", "tag=a=1&tag=a=2", "keys_only=7", "continuation_token=broken", "colour=red",
		"consistency=strong", "consistency=bounded_staleness", "consistency=snapshot&max_staleness_ms=5", "max_staleness_ms=5"} {
		f.expect(400, call{method: "GET", target: "/api/v1/keys?" + query})
	}
	f.expect(404, call{method: "GET", target: "/api/v1/keys?namespace=none"})
}

func TestNamespacesAndJobs(t *testing.T) {
	f := newFixture(t)
	res, _ := f.expect(http.StatusCreated, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"app:one"}`})
	if res.Header.Get("Location") != "/api/v1/namespaces/app:one" {
		t.Errorf("Location %s", res.Header.Get("Location"))
	}
	f.expect(http.StatusConflict, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"app:one"}`})
	f.expect(400, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"_mine"}`})
	f.expect(201, call{method: "PUT", target: "/api/v1/keys/k?namespace=app:one", body: "v"})
	if _, body := f.expect(200, call{method: "GET", target: "/api/v1/namespaces/app%3Aone"}); !strings.Contains(body, `"state":"active"`) {
		t.Errorf("describe: %s", body)
	}
	if _, body := f.expect(200, call{method: "GET", target: "/api/v1/namespaces"}); !strings.Contains(body, `"default"`) {
		t.Errorf("list: %s", body)
	}
	res, _ = f.expect(http.StatusAccepted, call{method: "DELETE", target: "/api/v1/namespaces/app:one"})
	if _, body := f.expect(200, call{method: "GET", target: res.Header.Get("Location")}); !strings.Contains(body, `"state":"done"`) {
		t.Errorf("job: %s", body)
	}
}
