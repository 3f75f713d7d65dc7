package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// openAPI is what the tests need of the document.
type openAPI struct {
	Paths      map[string]map[string]yaml.Node
	Components struct {
		Parameters map[string]parameter
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Parameters  []parameter
	Responses   map[string]yaml.Node
}

type parameter struct {
	Ref  string `yaml:"$ref"`
	Name string
	In   string
}

// operations returns the document's operations by "METHOD path".
func operations(t *testing.T) map[string]operation {
	t.Helper()
	var doc openAPI
	if err := yaml.Unmarshal(openapiDocument, &doc); err != nil {
		t.Fatal(err)
	}
	all := map[string]operation{}
	for path, methods := range doc.Paths {
		for method, node := range methods {
			if method == "parameters" {
				continue
			}
			var op operation
			if err := node.Decode(&op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			for i, p := range op.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					op.Parameters[i] = doc.Components.Parameters[name]
				}
			}
			all[strings.ToUpper(method)+" "+path] = op
		}
	}
	return all
}

// Every route is documented, with exactly its query parameters, and every
// documented operation has a route.
func TestDocumentHasEveryRoute(t *testing.T) {
	f := newFixture(t)
	documented := operations(t)
	for path, methods := range f.server.routes {
		for method, rt := range methods {
			name := method + " " + path
			op, ok := documented[name]
			if !ok {
				t.Errorf("%s is not documented", name)
				continue
			}
			delete(documented, name)
			var query []string
			for _, p := range op.Parameters {
				if p.Name == "" {
					t.Errorf("%s refers to a parameter that is not there", name)
				}
				if p.In == "query" {
					query = append(query, p.Name)
				}
			}
			want := slices.Clone(rt.query)
			sort.Strings(query)
			sort.Strings(want)
			if !slices.Equal(query, want) {
				t.Errorf("%s documents the query parameters %v, takes %v", name, query, want)
			}
		}
	}
	for name := range documented {
		t.Errorf("%s is documented and has no route", name)
	}
}

// exercise is one request for a documented answer.
type exercise struct {
	operation string // METHOD path, as in the document
	status    int
	call      call
	prepare   func(*fixture)
}

// failing makes the backend answer every operation and list with err.
func failing(code fault.Code) func(*fixture) {
	return func(f *fixture) {
		err := fault.New(code, "made by the test")
		f.backend.Fail = func(context.Context, *api.PipelineOp) error { return err }
		f.backend.FailCall = failWith(err)
	}
}

func have(keys ...string) func(*fixture) {
	return func(f *fixture) {
		for _, k := range keys {
			f.put(k, "v")
		}
	}
}

func aJob(f *fixture) { f.expect(202, call{method: "DELETE", target: "/api/v1/keys?all=true"}) }

func exercises() []exercise {
	const key, keyOp = "/api/v1/keys/k", " /api/v1/keys/{key}"
	long := "/api/v1/keys/" + strings.Repeat("k", 1025)
	all := []exercise{
		{"PUT" + keyOp, 200, call{method: "PUT", target: key + "?format=json"}, have("k")},
		{"PUT" + keyOp, 201, call{method: "PUT", target: key}, nil},
		{"PUT" + keyOp, 204, call{method: "PUT", target: key}, have("k")},
		{"PUT" + keyOp, 413, call{method: "PUT", target: key, body: strings.Repeat("v", 16<<20+1)}, nil},
		{"PUT" + keyOp, 409, call{method: "PUT", target: key}, failing(fault.NamespaceDeleting)},
		{"PUT" + keyOp, 429, call{method: "PUT", target: key}, failing(fault.Overloaded)},
		{"PUT" + keyOp, 500, call{method: "PUT", target: key}, failing(fault.UnknownOutcome)},
		{"PUT" + keyOp, 503, call{method: "PUT", target: key}, failing(fault.Unavailable)},
		{"PUT" + keyOp, 504, call{method: "PUT", target: key}, failing(fault.DeadlineExceeded)},
		{"POST /api/v1/requests", 201, call{method: "POST", target: "/api/v1/requests"}, nil},
		{"GET /api/v1/requests/{id}", 200, call{method: "GET", target: "/api/v1/requests/06h1l51rd0000abckvutghq468"}, nil},
		{"GET /api/v1/requests/{id}", 400, call{method: "GET", target: "/api/v1/requests/none"}, nil},
		{"PATCH" + keyOp, 200, call{method: "PATCH", target: key + "?format=json&ttl_seconds=5"}, have("k")},
		{"PATCH" + keyOp, 204, call{method: "PATCH", target: key + "?persist"}, have("k")},
		{"DELETE" + keyOp, 200, call{method: "DELETE", target: key + "?format=json"}, nil},
		{"DELETE" + keyOp, 204, call{method: "DELETE", target: key}, nil},
		{"GET" + keyOp, 410, call{method: "GET", target: key}, failing(fault.OutOfRange)},
		{"GET /api/v1/keys", 200, call{method: "GET", target: "/api/v1/keys"}, nil},
		{"GET /api/v1/keys", 400, call{method: "GET", target: "/api/v1/keys?limit=x"}, nil},
		{"GET /api/v1/keys", 404, call{method: "GET", target: "/api/v1/keys?namespace=x"}, nil},
		{"GET /api/v1/keys", 410, call{method: "GET", target: "/api/v1/keys"}, failing(fault.OutOfRange)},
		{"GET /api/v1/watch/{prefix}", 200, call{method: "HEAD", target: "/api/v1/watch/"}, withWatches},
		{"GET /api/v1/watch/{prefix}", 400, call{method: "GET", target: "/api/v1/watch/?after_revision=x"}, nil},
		{"GET /api/v1/watch/{prefix}", 404, call{method: "GET", target: "/api/v1/watch/?namespace=none"}, withWatches},
		{"GET /api/v1/namespaces", 200, call{method: "GET", target: "/api/v1/namespaces"}, nil},
		{"POST /api/v1/namespaces", 201, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"n"}`}, nil},
		{"POST /api/v1/namespaces", 400, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"!"}`}, nil},
		{"POST /api/v1/namespaces", 409, call{method: "POST", target: "/api/v1/namespaces", body: `{"name":"default"}`}, nil},
		{"POST /api/v1/namespaces", 413, call{method: "POST", target: "/api/v1/namespaces", body: strings.Repeat(" ", maxSmallBody+1)}, nil},
		{"POST /api/v1/namespaces", 415, call{"POST", "/api/v1/namespaces", []string{"Content-Type: text/plain"}, "n"}, nil},
		{"GET /api/v1/namespaces/{name}", 200, call{method: "GET", target: "/api/v1/namespaces/default"}, nil},
		{"GET /api/v1/namespaces/{name}", 404, call{method: "GET", target: "/api/v1/namespaces/none"}, nil},
		{"DELETE /api/v1/namespaces/{name}", 202, call{method: "DELETE", target: "/api/v1/namespaces/default"}, nil},
		{"DELETE /api/v1/namespaces/{name}", 404, call{method: "DELETE", target: "/api/v1/namespaces/none"}, nil},
		{"GET /api/v1/jobs/{id}", 404, call{method: "GET", target: "/api/v1/jobs/none"}, nil},
		{"GET /api/v1/jobs/{id}", 200, call{method: "GET", target: "/api/v1/jobs/job-default"}, func(f *fixture) {
			f.expect(202, call{method: "DELETE", target: "/api/v1/namespaces/default"})
		}},
		{"DELETE /api/v1/keys", 202, call{method: "DELETE", target: "/api/v1/keys?prefix=a&tag=x%3Dy"}, nil},
		{"DELETE /api/v1/keys", 400, call{method: "DELETE", target: "/api/v1/keys"}, nil},
		{"GET /api/v1/jobs", 200, call{method: "GET", target: "/api/v1/jobs"}, aJob},
		{"DELETE /api/v1/jobs/{id}", 202, call{method: "DELETE", target: "/api/v1/jobs/range-1"}, aJob},
		{"DELETE /api/v1/jobs/{id}", 404, call{method: "DELETE", target: "/api/v1/jobs/none"}, nil},
		{"DELETE /api/v1/jobs/{id}", 409, call{method: "DELETE", target: "/api/v1/jobs/range-1"}, func(f *fixture) {
			aJob(f)
			f.expect(202, call{method: "DELETE", target: "/api/v1/jobs/range-1"})
		}},
		{"GET /api/v1/history/{key}", 200, call{method: "GET", target: "/api/v1/history/k?limit=1"}, have("k")},
		{"GET /api/v1/history/{key}", 400, call{method: "GET", target: "/api/v1/history/k?limit=0"}, nil},
		{"GET /api/v1/admin/status", 200, call{method: "GET", target: "/api/v1/admin/status"}, nil},
		{"GET /api/v1/admin/metrics", 200, call{method: "GET", target: "/api/v1/admin/metrics"}, nil},
		{"GET /api/v1/admin/digest", 200, call{method: "GET", target: "/api/v1/admin/digest"}, nil},
		{"POST /api/v1/admin/digest", 200, call{method: "POST", target: "/api/v1/admin/digest"}, nil},
		{"GET /api/v1/openapi.yaml", 200, call{method: "GET", target: "/api/v1/openapi.yaml"}, nil},
		{"GET /healthz", 200, call{method: "GET", target: "/healthz"}, nil},
		{"GET /readyz", 200, call{method: "GET", target: "/readyz"}, nil},
		{"GET /readyz", 503, call{method: "GET", target: "/readyz"}, func(f *fixture) { f.ready = false }},
	}
	all = append(all, leaseExercises()...)
	const txnOp, txn = "POST /api/v1/transaction", "/api/v1/transaction"
	put := `{"operations":[{"type":"PUT","key":"k","value":"v","conditions":{"must_not_exist":true}}]}`
	all = append(all,
		exercise{txnOp, 200, call{method: "POST", target: txn, body: put}, nil},
		exercise{txnOp, 400, call{method: "POST", target: txn, body: "{"}, nil},
		exercise{txnOp, 412, call{method: "POST", target: txn, body: put}, have("k")},
		exercise{txnOp, 413, call{method: "POST", target: txn, body: put}, failing(fault.MessageTooLarge)},
		exercise{txnOp, 415, call{"POST", txn, []string{"Content-Type: text/csv"}, put}, nil},
		exercise{txnOp, 422, call{method: "POST", target: txn, body: put}, failing(fault.CrossGroup)})
	for _, method := range []string{"GET", "HEAD"} {
		all = append(all,
			exercise{method + keyOp, 200, call{method: method, target: key}, have("k")},
			exercise{method + keyOp, 304, call{method, key, []string{"If-None-Match: *"}, ""}, have("k")})
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE"} {
		target, here := key, key
		if method != "GET" && method != "HEAD" {
			target += "?namespace=none"
		}
		if method == "PATCH" {
			target, here = target+"&persist", key+"?persist"
		}
		all = append(all,
			exercise{method + keyOp, 400, call{method: method, target: long}, nil},
			exercise{method + keyOp, 404, call{method: method, target: target}, nil},
			exercise{method + keyOp, 412, call{method, here, []string{`If-Match: "x"`}, ""}, have("k")})
	}
	for path, body := range map[string]string{"put": `{"items":[]}`, "delete": `{"items":[]}`, "get": `{"keys":[]}`} {
		op, target := "POST /api/v1/batch/"+path, "/api/v1/batch/"+path
		all = append(all,
			exercise{op, 200, call{method: "POST", target: target, body: body}, nil},
			exercise{op, 400, call{method: "POST", target: target, body: "{"}, nil},
			exercise{op, 415, call{"POST", target, []string{"Content-Type: text/csv"}, body}, nil})
		if path != "get" {
			all = append(all,
				exercise{op, 413, call{method: "POST", target: target, body: body}, failing(fault.MessageTooLarge)},
				exercise{op, 422, call{method: "POST", target: target, body: body}, failing(fault.CrossGroup)})
		}
	}
	return all
}

// Every documented status is answered by the handlers, and only those. (408 is
// TestSlowBodyTimesOut.)
func TestDocumentedStatusesAreAnswered(t *testing.T) {
	left := map[string]bool{}
	for name, op := range operations(t) {
		for code := range op.Responses {
			if code != "default" {
				left[name+" "+code] = true
			}
		}
	}
	delete(left, "PUT /api/v1/keys/{key} 408")
	for _, e := range exercises() {
		name := fmt.Sprintf("%s %d", e.operation, e.status)
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if e.prepare != nil {
				e.prepare(f)
			}
			f.expect(e.status, e.call)
			if _, ok := left[name]; !ok {
				t.Error("answered and not documented")
			}
			left[name] = false
		})
	}
	for name, open := range left {
		if open {
			t.Errorf("%s is documented and not exercised", name)
		}
	}
}

func TestDocumentIsServed(t *testing.T) {
	f := newFixture(t)
	res, body := f.expect(http.StatusOK, call{method: "GET", target: openapiPath})
	if res.Header.Get("Content-Type") != "application/yaml" || body != string(openapiDocument) {
		t.Errorf("headers %v", res.Header)
	}
}
