package rest

import (
	"net/http"
	"net/url"
	"sort"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Body limits in bytes. A batch is at most 16 MB of keys and values (the
// router holds that), which base64 and JSON make larger.
const (
	maxBatchBody = 32 << 20
	maxSmallBody = 64 << 10
)

// route is one method of one path.
type route struct {
	// name of the operation in metrics.
	name string
	// query names the parameters that are taken; nil takes any.
	query []string
	// maxBody is the largest body in bytes; 0 reads none.
	maxBody int64
	// open routes pass without authentication and limits.
	open   bool
	handle func(*request) error
}

// table holds the routes by path pattern, then by method. A pattern ends in one
// variable or has none; {key} takes slashes.
type table map[string]map[string]*route

const (
	keysPath    = "/api/v1/keys"
	keyPattern  = "/api/v1/keys/{key}"
	namespaces  = "/api/v1/namespaces"
	jobs        = "/api/v1/jobs/"
	openapiPath = "/api/v1/openapi.yaml"
)

var (
	readParams      = []string{"namespace", "consistency", "max_staleness_ms"}
	conditionParams = []string{"version_match", "revision_match", "must_exist", "must_not_exist", "value_equals", "value_equals_base64"}
)

// with joins parameter names and adds the one that every route takes.
func with(lists ...[]string) []string {
	all := []string{"timeout_ms"}
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func (s *Server) table() table {
	get := with(readParams, []string{"format", "at_revision"})
	write := with([]string{"namespace", "format"}, conditionParams)
	none := with()
	ns := with([]string{"namespace"})
	return table{
		keyPattern: {
			http.MethodGet:    {name: "Get", query: get, handle: s.getKey},
			http.MethodHead:   {name: "Head", query: get, handle: s.headKey},
			http.MethodPut:    {name: "Put", query: append(write, "ttl_seconds", "expires_at"), maxBody: keyspace.MaxValueBytes, handle: s.putKey},
			http.MethodDelete: {name: "Delete", query: write, handle: s.deleteKey},
		},
		keysPath: {
			http.MethodGet: {name: "List", handle: s.listKeys, query: with([]string{"namespace", "prefix", "start", "end", "limit", "keys_only", "reverse", "continuation_token", "tag", "count_only"})},
		},
		"/api/v1/batch/put":    {http.MethodPost: {name: "BatchPut", query: ns, maxBody: maxBatchBody, handle: s.batchPut}},
		"/api/v1/batch/get":    {http.MethodPost: {name: "BatchGet", query: with(readParams), maxBody: maxBatchBody, handle: s.batchGet}},
		"/api/v1/batch/delete": {http.MethodPost: {name: "BatchDelete", query: ns, maxBody: maxBatchBody, handle: s.batchDelete}},
		namespaces: {
			http.MethodGet:  {name: "ListNamespaces", query: none, handle: s.listNamespaces},
			http.MethodPost: {name: "CreateNamespace", query: none, maxBody: maxSmallBody, handle: s.createNamespace},
		},
		namespaces + "/{name}": {
			http.MethodGet:    {name: "DescribeNamespace", query: none, handle: s.describeNamespace},
			http.MethodDelete: {name: "DeleteNamespace", query: none, handle: s.deleteNamespace},
		},
		jobs + "{id}":           {http.MethodGet: {name: "DescribeJob", query: none, handle: s.describeJob}},
		"/api/v1/admin/status":  {http.MethodGet: {name: "Status", query: none, handle: s.status}},
		"/api/v1/admin/metrics": {http.MethodGet: {name: "Metrics", query: none, handle: s.metrics}},
		"/api/v1/admin/digest":  {http.MethodGet: {name: "Digest", query: none, handle: s.digest}, http.MethodPost: {name: "Digest", query: none, handle: s.digest}},
		openapiPath:             {http.MethodGet: {name: "OpenAPI", open: true, handle: openapi}},
		"/healthz":              {http.MethodGet: {name: "Healthz", open: true, handle: healthz}},
		"/readyz":               {http.MethodGet: {name: "Readyz", open: true, handle: s.readyz}},
	}
}

// find returns the route of a request and the decoded variable of its path.
// The path is the escaped one, as it was sent.
func (t table) find(method, path string) (*route, string, error) {
	pattern, raw := match(path)
	methods, ok := t[pattern]
	if !ok {
		return nil, "", &httpError{status: http.StatusNotFound,
			fault: fault.New(fault.Unsupported, "there is nothing at this path", "path", clip(path), "openapi", openapiPath)}
	}
	rt, ok := methods[method]
	if !ok && method == http.MethodHead {
		rt, ok = methods[http.MethodGet] // net/http leaves the body out
	}
	if !ok {
		return nil, "", methodNotAllowed(method, methods)
	}
	param, err := url.PathUnescape(raw)
	if err != nil {
		return nil, "", fault.Wrap(fault.InvalidArgument, err, "the path is not well percent-encoded")
	}
	return rt, param, nil
}

// match splits a path into its pattern and the raw variable part.
func match(path string) (pattern, raw string) {
	if raw, ok := strings.CutPrefix(path, keysPath+"/"); ok {
		return keyPattern, raw
	}
	for _, p := range []struct{ prefix, name string }{{namespaces + "/", "{name}"}, {jobs, "{id}"}} {
		if raw, ok := strings.CutPrefix(path, p.prefix); ok && raw != "" && !strings.Contains(raw, "/") {
			return p.prefix + p.name, raw
		}
	}
	return path, ""
}

func methodNotAllowed(method string, methods map[string]*route) error {
	allowed := make([]string, 0, len(methods)+1)
	for m := range methods {
		allowed = append(allowed, m)
	}
	if methods[http.MethodGet] != nil && methods[http.MethodHead] == nil {
		allowed = append(allowed, http.MethodHead)
	}
	sort.Strings(allowed)
	allow := strings.Join(allowed, ", ")
	return &httpError{status: http.StatusMethodNotAllowed, allow: allow,
		fault: fault.New(fault.Unsupported, "this path does not have this method", "method", clip(method), "allowed", allow)}
}

// clip bounds text that a caller sent and an error repeats.
func clip(s string) string {
	const limit = 256
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
