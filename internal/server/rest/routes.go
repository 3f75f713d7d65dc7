package rest

import (
	"net/http"
	"net/url"
	"slices"
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
	open bool
	// stream routes answer for as long as the client listens.
	stream bool
	// writes says that the route changes something, safety which of safetyHeaders
	// it honours.
	writes bool
	safety []string
	handle func(*request) error
}

// table holds the routes by path pattern, then by method. A pattern ends in one
// variable or has none; {key} and {prefix} take slashes, {prefix} may be empty.
type table map[string]map[string]*route

const (
	keysPath     = "/api/v1/keys"
	keyPattern   = "/api/v1/keys/{key}"
	watchPath    = "/api/v1/watch"
	watchPattern = "/api/v1/watch/{prefix}"
	namespaces   = "/api/v1/namespaces"
	jobsPath     = "/api/v1/jobs"
	jobs         = "/api/v1/jobs/"
	historyPath  = "/api/v1/history"
	historyKey   = "/api/v1/history/{key}"
	requests     = "/api/v1/requests"
	leasesPath   = "/api/v1/leases"
	openapiPath  = "/api/v1/openapi.yaml"
)

var (
	readParams      = []string{"namespace", "consistency", "max_staleness_ms"}
	conditionParams = []string{"version_match", "revision_match", "must_exist", "must_not_exist", "value_equals", "value_equals_base64", "created_match", "lease_match"}
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
	get := with(readParams, []string{"format", "at_revision", "at"})
	write := with([]string{"namespace", "format"}, conditionParams)
	none := with()
	ns := with([]string{"namespace"})
	span := with([]string{"namespace", "prefix", "start", "end", "tag"})
	return table{
		keyPattern: {
			http.MethodGet:    {name: "Get", query: get, handle: s.getKey},
			http.MethodHead:   {name: "Head", query: get, handle: s.headKey},
			http.MethodPut:    {name: "Put", writes: true, safety: takesAllSafety, query: append(write, "ttl_seconds", "expires_at", "lease"), maxBody: keyspace.MaxValueBytes, handle: s.putKey},
			http.MethodPatch:  {name: "Touch", writes: true, safety: takesConditions, query: append(write, "ttl_seconds", "expires_at", "persist"), handle: s.touchKey},
			http.MethodDelete: {name: "Delete", writes: true, safety: takesAllSafety, query: write, handle: s.deleteKey},
		},
		keysPath: {
			http.MethodGet:    {name: "List", handle: s.listKeys, query: append(slices.Clone(span), "limit", "keys_only", "reverse", "continuation_token", "count_only", "at", "consistency", "max_staleness_ms")},
			http.MethodDelete: {name: "DeleteRange", writes: true, handle: s.deleteRange, query: append(slices.Clone(span), "all")},
		},
		watchPattern: {
			http.MethodGet: {name: "Watch", handle: s.watchKeys, stream: true,
				query: []string{"namespace", "exact", "start", "end", "tag", "after_revision", "token", "previous", "keys_only"}},
		},
		"/api/v1/batch/put":    {http.MethodPost: {name: "BatchPut", writes: true, safety: takesFence, query: ns, maxBody: maxBatchBody, handle: s.batchPut}},
		"/api/v1/batch/get":    {http.MethodPost: {name: "BatchGet", query: with(readParams, []string{"at"}), maxBody: maxBatchBody, handle: s.batchGet}},
		"/api/v1/batch/delete": {http.MethodPost: {name: "BatchDelete", writes: true, safety: takesFence, query: ns, maxBody: maxBatchBody, handle: s.batchDelete}},
		"/api/v1/transaction":  {http.MethodPost: {name: "Transaction", writes: true, safety: takesFence, query: ns, maxBody: maxBatchBody, handle: s.transaction}},
		namespaces: {
			http.MethodGet:  {name: "ListNamespaces", query: none, handle: s.listNamespaces},
			http.MethodPost: {name: "CreateNamespace", writes: true, query: none, maxBody: maxSmallBody, handle: s.createNamespace},
		},
		namespaces + "/{name}": {
			http.MethodGet:    {name: "DescribeNamespace", query: none, handle: s.describeNamespace},
			http.MethodDelete: {name: "DeleteNamespace", writes: true, query: none, handle: s.deleteNamespace},
		},
		historyKey: {
			http.MethodGet: {name: "History", handle: s.history, query: with([]string{"namespace", "until_revision", "limit", "keys_only"})},
		},
		jobsPath: {http.MethodGet: {name: "ListJobs", query: none, handle: s.listJobs}},
		jobs + "{id}": {
			http.MethodGet:    {name: "DescribeJob", query: none, handle: s.describeJob},
			http.MethodDelete: {name: "CancelJob", writes: true, query: none, handle: s.cancelJob},
		},
		requests:           {http.MethodPost: {name: "NewRequestID", query: none, handle: s.newRequestID}},
		requests + "/{id}": {http.MethodGet: {name: "DescribeRequest", query: none, handle: s.describeRequest}},
		leasesPath: {
			http.MethodGet:  {name: "ListLeases", query: with([]string{"limit", "continuation_token"}), handle: s.withLeases(s.listLeases)},
			http.MethodPost: {name: "GrantLease", writes: true, query: none, maxBody: maxSmallBody, handle: s.withLeases(s.grantLease)},
		},
		leasesPath + "/{id}": {
			http.MethodGet:    {name: "DescribeLease", query: with([]string{"keys"}), handle: s.withLeases(s.describeLease)},
			http.MethodPost:   {name: "KeepLeaseAlive", writes: true, query: none, handle: s.withLeases(s.keepAlive)},
			http.MethodDelete: {name: "RevokeLease", writes: true, query: none, handle: s.withLeases(s.revokeLease)},
		},
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
	if raw, ok := strings.CutPrefix(path, historyPath+"/"); ok {
		return historyKey, raw
	}
	if raw, ok := strings.CutPrefix(path, watchPath+"/"); ok {
		return watchPattern, raw
	}
	for _, p := range []struct{ prefix, name string }{{namespaces + "/", "{name}"}, {jobs, "{id}"}, {requests + "/", "{id}"}, {leasesPath + "/", "{id}"}} {
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
