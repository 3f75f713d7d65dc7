package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// S3.7, S3.8, S3.16: everything that is stored beside a value comes back.
func TestPutAndGetRoundTrip(t *testing.T) {
	f := newFixture(t)
	res, _ := f.expect(http.StatusCreated, call{"PUT", "/api/v1/keys/user/1", []string{
		"Content-Type: text/plain; charset=utf-8", "Content-Encoding: gzip", "X-Kvstore-Tags: team=core&b%3D=%C3%A9",
		"X-Kvstore-Metadata: source=test", "X-Kvstore-Ttl: 60", "X-Kvstore-Checksum: e3069283",
	}, "123456789"})
	if res.Header.Get("Location") != "/api/v1/keys/user/1" || res.Header.Get("X-Kvstore-Version") != "1" {
		t.Errorf("headers of a creation: %v", res.Header)
	}
	res, body := f.expect(http.StatusOK, call{method: "GET", target: "/api/v1/keys/user/1"})
	if body != "123456789" {
		t.Errorf("body %q", body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip", "X-Kvstore-Tags": "b%3D=%C3%A9&team=core",
		"X-Kvstore-Metadata": "source=test", "X-Kvstore-Checksum": "e3069283", "X-Kvstore-Expires-At": "2027-01-15T08:01:00.000Z",
		"X-Kvstore-Created-At": "2027-01-15T08:00:00.000Z", "X-Kvstore-Updated-At": "2027-01-15T08:00:00.000Z",
		"X-Kvstore-Version": "1", "X-Kvstore-Consistency": "linearizable", "X-Kvstore-Age-Ms": "0", "Content-Length": "9",
		"X-Content-Type-Options": "nosniff", "Vary": "Accept", "Cache-Control": "no-cache",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	head, body := f.expect(http.StatusOK, call{method: "HEAD", target: "/api/v1/keys/user/1"})
	if body != "" || head.Header.Get("Content-Length") != "9" || head.Header.Get("ETag") != res.Header.Get("ETag") {
		t.Errorf("HEAD: body %q, headers %v", body, head.Header)
	}
}

func TestEnvelope(t *testing.T) {
	f := newFixture(t)
	f.put("text", "grüße\x00", "Content-Type: text/plain")
	f.put("bytes", "\xff\x00")
	f.put("empty", "")
	for target, accept := range map[string]string{"text": "application/json", "text?format=json": "*/*", "text?": "text/html, application/json;q=0.5"} {
		res, body := f.expect(http.StatusOK, call{"GET", "/api/v1/keys/" + target, []string{"Accept: " + accept}, ""})
		var e getEnvelope
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.Value == nil || *e.Value != "grüße\x00" || e.ValueBase64 != nil || e.Version != 1 {
			t.Errorf("%s: %s (%v)", target, body, err)
		}
		if !strings.HasSuffix(res.Header.Get("ETag"), `-j"`) {
			t.Errorf("the envelope is another entity: ETag %s", res.Header.Get("ETag"))
		}
	}
	for _, accept := range []string{"", "*/*", "application/json;q=0", "text/plain"} {
		if _, body := f.expect(http.StatusOK, call{"GET", "/api/v1/keys/text", []string{"Accept: " + accept}, ""}); body != "grüße\x00" {
			t.Errorf("Accept %q: %s", accept, body)
		}
	}
	if _, body := f.expect(http.StatusOK, call{"GET", "/api/v1/keys/text?format=raw", []string{"Accept: application/json"}, ""}); body != "grüße\x00" {
		t.Errorf("format=raw: %s", body)
	}
	_, body := f.expect(http.StatusOK, call{method: "GET", target: "/api/v1/keys/bytes?format=json"})
	if !strings.Contains(body, `"value_base64":"/wA="`) || strings.Contains(body, `"value":`) {
		t.Errorf("bytes: %s", body)
	}
	_, body = f.expect(http.StatusOK, call{method: "GET", target: "/api/v1/keys/empty?format=json"})
	if !strings.Contains(body, `"value":""`) {
		t.Errorf("empty value: %s", body)
	}
	_, body = f.expect(http.StatusOK, call{"PUT", "/api/v1/keys/text", []string{"Accept: application/json"}, "2"})
	if !strings.Contains(body, `"version":2`) {
		t.Errorf("PUT: %s", body)
	}
	_, body = f.expect(http.StatusOK, call{"DELETE", "/api/v1/keys/text", []string{"Accept: application/json"}, ""})
	if !strings.Contains(body, `"existed":true`) {
		t.Errorf("DELETE: %s", body)
	}
}

// Every header rule of conditions: {present, old, none} stand for the tag that
// is current, one that was, and no key.
func TestConditionalWrites(t *testing.T) {
	for _, c := range []struct {
		name, header, query string
		exists              bool
		want                int
	}{
		{"create only", "If-None-Match: *", "", false, 201},
		{"create only, there", "If-None-Match: *", "", true, 412},
		{"update only", "If-Match: *", "", true, 204},
		{"update only, absent", "If-Match: *", "", false, 412},
		{"current tag", "If-Match: CURRENT", "", true, 204},
		{"current tag of the envelope", "If-Match: ENVELOPE", "", true, 204},
		{"old tag", "If-Match: OLD", "", true, 412},
		{"weak tag", "If-Match: W/CURRENT", "", true, 412},
		{"foreign tag", `If-Match: "etag!"`, "", true, 412},
		{"foreign tag, absent", `If-Match: "etag!"`, "", false, 412},
		{"one of several", "If-Match: OLD, CURRENT", "", true, 204},
		{"none of several", `If-Match: OLD, "x", "y"`, "", true, 412},
		{"one of several, absent", "If-Match: OLD, CURRENT", "", false, 412},
		{"tag and star", "If-Match: CURRENT", "must_exist", true, 204},
		{"tag contradicts query", "If-Match: CURRENT", "revision_match=1", true, 412},
		{"tag list on If-None-Match", "If-None-Match: CURRENT", "", true, 400},
		{"unquoted tag", "If-Match: abc", "", true, 400},
		{"empty tag list", "If-Match: ,", "", true, 400},
		{"date", "If-Unmodified-Since: Sat, 21 Nov 2026 01:00:00 GMT", "", true, 400},
		{"version", "", "version_match=2", true, 204},
		{"version 0", "", "version_match=0", false, 201},
		{"wrong version", "", "version_match=1", true, 412},
		{"wrong revision", "", "revision_match=7", true, 412},
		{"exists", "", "must_exist=true", true, 204},
		{"exists not", "", "must_exist", false, 412},
		{"value", "", "value_equals=two", true, 204},
		{"value as base64", "", "value_equals_base64=dHdv", true, 204},
		{"other value", "", "value_equals=one", true, 412},
		{"both values", "", "value_equals=two&value_equals_base64=dHdv", true, 400},
		{"bad base64", "", "value_equals_base64=%21", true, 400},
		{"bad flag", "", "must_exist=maybe", true, 400},
	} {
		for _, method := range []string{"PUT", "DELETE"} {
			t.Run(method+" "+c.name, func(t *testing.T) {
				f := newFixture(t)
				old := f.put("k", "one")
				current := f.put("k", "two")
				if !c.exists {
					f.expect(204, call{method: "DELETE", target: "/api/v1/keys/k"})
				}
				h := strings.NewReplacer("CURRENT", current, "OLD", old, "ENVELOPE", strings.TrimSuffix(current, `"`)+`-j"`).Replace(c.header)
				want := c.want
				if method == "DELETE" && want == 201 {
					want = 204
				}
				f.expect(want, call{method, "/api/v1/keys/k?" + c.query, []string{h}, "three"})
			})
		}
	}
}

// DESIGN 12: a deleted and recreated key never matches an old tag.
func TestRecreatedKeyNeverMatchesOldTag(t *testing.T) {
	f := newFixture(t)
	old := f.put("k", "same")
	f.expect(204, call{method: "DELETE", target: "/api/v1/keys/k"})
	f.put("k", "same")
	f.expect(412, call{"PUT", "/api/v1/keys/k", []string{"If-Match: " + old}, "x"})
}

func TestConditionalReads(t *testing.T) {
	for _, c := range []struct {
		header string
		want   int
	}{
		{"If-None-Match: CURRENT", 304}, {"If-None-Match: W/CURRENT", 304}, {"If-None-Match: *", 304},
		{`If-None-Match: "x", CURRENT`, 304}, {"If-None-Match: OLD", 200}, {"If-None-Match: ENVELOPE", 200},
		{"If-Match: CURRENT", 200}, {"If-Match: *", 200}, {"If-Match: OLD", 412}, {"If-Match: W/CURRENT", 412},
		{"If-Match: ENVELOPE", 412}, {"If-None-Match: nonsense", 400},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+c.header, func(t *testing.T) {
				f := newFixture(t)
				old := f.put("k", "one")
				current := f.put("k", "two")
				h := strings.NewReplacer("CURRENT", current, "OLD", old, "ENVELOPE", strings.TrimSuffix(current, `"`)+`-j"`).Replace(c.header)
				res, body := f.expect(c.want, call{method, "/api/v1/keys/k", []string{h}, ""})
				if c.want == 304 && (body != "" || res.Header.Get("ETag") != current) {
					t.Errorf("304 with body %q and ETag %s", body, res.Header.Get("ETag"))
				}
			})
		}
	}
}

func TestDeleteSaysWhetherTheKeyWasThere(t *testing.T) {
	f := newFixture(t)
	f.put("k", "v")
	for _, want := range []string{"true", "false"} {
		res, _ := f.expect(204, call{method: "DELETE", target: "/api/v1/keys/k"})
		if got := res.Header.Get("X-Kvstore-Existed"); got != want {
			t.Errorf("existed %s, want %s", got, want)
		}
	}
}

// ASKS A3: the refusal names the limit and the actual size.
func TestValueLimit(t *testing.T) {
	f := newFixture(t)
	largest := strings.Repeat("v", keyspace.MaxValueBytes)
	f.expect(201, call{method: "PUT", target: "/api/v1/keys/k", body: largest})
	p := f.problem(413, call{method: "PUT", target: "/api/v1/keys/k", body: largest + "v"})
	if p.Code != fault.ValueTooLarge || p.Details["limit_bytes"] != "16777216" || p.Details["actual_bytes"] != "16777217" || p.Details["key"] != "k" {
		t.Errorf("problem: %+v", p)
	}
}

func TestBadRequests(t *testing.T) {
	for _, c := range []struct {
		name string
		call call
		want int
		code fault.Code
	}{
		{"empty key", call{method: "GET", target: "/api/v1/keys/"}, 400, fault.InvalidKey},
		{"long key", call{method: "GET", target: "/api/v1/keys/" + strings.Repeat("k", 1025)}, 400, fault.KeyTooLarge},
		{"not UTF-8", call{method: "PUT", target: "/api/v1/keys/%ff"}, 400, fault.InvalidKey},
		{"unknown parameter", call{method: "GET", target: "/api/v1/keys/k?ttl=1"}, 400, fault.InvalidArgument},
		{"repeated parameter", call{method: "GET", target: "/api/v1/keys/k?namespace=a&namespace=b"}, 400, fault.InvalidArgument},
		{"bad query", call{method: "GET", target: "/api/v1/keys/k?namespace=%zz"}, 400, fault.InvalidArgument},
		{"query not UTF-8", call{method: "GET", target: "/api/v1/keys/k?namespace=%ff"}, 400, fault.InvalidArgument},
		{"bad format", call{method: "GET", target: "/api/v1/keys/k?format=xml"}, 400, fault.InvalidArgument},
		{"bad consistency", call{method: "GET", target: "/api/v1/keys/k?consistency=eventual"}, 400, fault.InvalidArgument},
		{"staleness alone", call{method: "GET", target: "/api/v1/keys/k?max_staleness_ms=5"}, 400, fault.InvalidArgument},
		{"no staleness", call{method: "GET", target: "/api/v1/keys/k?consistency=bounded_staleness"}, 400, fault.InvalidArgument},
		{"bad revision", call{method: "GET", target: "/api/v1/keys/k?at_revision=x"}, 400, fault.InvalidArgument},
		{"bad timeout", call{method: "GET", target: "/api/v1/keys/k?timeout_ms=0"}, 400, fault.InvalidArgument},
		{"bad timeout header", call{"GET", "/api/v1/keys/k", []string{"X-Kvstore-Timeout-Ms: soon"}, ""}, 400, fault.InvalidArgument},
		{"unknown namespace", call{method: "GET", target: "/api/v1/keys/k?namespace=nope"}, 404, fault.NamespaceNotFound},
		{"no key", call{method: "GET", target: "/api/v1/keys/k"}, 404, fault.NotFound},
		{"bad checksum", call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Checksum: 12345678"}, "v"}, 400, fault.ChecksumMismatch},
		{"no checksum", call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Checksum: 123"}, "v"}, 400, fault.InvalidArgument},
		{"bad tags", call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Tags: a=%zz"}, "v"}, 400, fault.InvalidArgument},
		{"tag twice", call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Tags: a=1&a=2"}, "v"}, 400, fault.InvalidArgument},
		{"tag not UTF-8", call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Tags: a=%ff"}, "v"}, 400, fault.InvalidArgument},
		{"type not UTF-8", call{"PUT", "/api/v1/keys/k", []string{"Content-Type: \xff"}, "v"}, 400, fault.InvalidArgument},
		{"bad ttl", call{method: "PUT", target: "/api/v1/keys/k?ttl_seconds=-1"}, 400, fault.InvalidArgument},
		{"bad expiry", call{method: "PUT", target: "/api/v1/keys/k?expires_at=tomorrow"}, 400, fault.InvalidArgument},
		{"range", call{"PUT", "/api/v1/keys/k", []string{"Content-Range: bytes 0-1/2"}, "v"}, 400, fault.InvalidArgument},
		{"no route", call{method: "GET", target: "/api/v2/keys/k"}, 404, fault.Unsupported},
		{"slash in a namespace", call{method: "GET", target: "/api/v1/namespaces/a/b"}, 404, fault.Unsupported},
		{"no method", call{method: "POST", target: "/api/v1/keys/k"}, 405, fault.Unsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p := newFixture(t).problem(c.want, c.call); p.Code != c.code {
				t.Errorf("code %s, want %s: %+v", p.Code, c.code, p)
			}
		})
	}
}

// Errors name what was sent: the header, not the parameter it stands for, and
// checksums as the header has them.
func TestErrorsNameWhatWasSent(t *testing.T) {
	for _, c := range []struct {
		target, header, want, detail string
	}{
		{"k", "X-Kvstore-Ttl: never", "header X-Kvstore-Ttl must be", "never"},
		{"k", "X-Kvstore-Ttl: 0", "header X-Kvstore-Ttl must be", "0"},
		{"k?ttl_seconds=-1", "", "query parameter ttl_seconds must be", "-1"},
		{"k?ttl_seconds=99999999999999999999", "", "query parameter ttl_seconds must be", "99999999999999999999"},
		{"k?ttl_seconds=", "", "query parameter ttl_seconds must be", ""},
		{"k", "X-Kvstore-Expires-At: tomorrow", "header X-Kvstore-Expires-At must be", "tomorrow"},
		{"k?expires_at=tomorrow", "X-Kvstore-Expires-At: tomorrow", "query parameter expires_at must be", "tomorrow"},
		{"k?ttl_seconds=5", "X-Kvstore-Ttl: 6", "header X-Kvstore-Ttl differs from the query parameter ttl_seconds", "6"},
		{"k", "X-Kvstore-Tags: a=%zz&b", "such as a=b&c=d", "a=%zz&b"},
		{"k", "X-Kvstore-Checksum: 0000abcd", "checksum", "0000abcd"},
	} {
		p := newFixture(t).problem(400, call{"PUT", "/api/v1/keys/" + c.target, []string{c.header}, "v"})
		if !strings.Contains(p.Detail, c.want) || p.Details["actual"] != c.detail && p.Details["expected_crc32c"] != c.detail {
			t.Errorf("%s: %+v", c.header, p)
		}
	}
	f := newFixture(t)
	f.expect(201, call{"PUT", "/api/v1/keys/k?ttl_seconds=5", []string{"X-Kvstore-Ttl: 5"}, "v"})
	if _, body := f.expect(400, call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Tags: a=%zz&b"}, "v"}); !strings.Contains(body, "a=b&c=d") {
		t.Errorf("escaped more than JSON needs: %s", body)
	}
}

func TestMethodNotAllowedNamesTheAllowed(t *testing.T) {
	f := newFixture(t)
	for target, want := range map[string]string{
		"/api/v1/keys/k": "DELETE, GET, HEAD, PATCH, PUT", "/api/v1/keys": "DELETE, GET, HEAD", "/api/v1/batch/put": "POST", "/healthz": "GET, HEAD",
	} {
		res, _ := f.expect(405, call{method: "TRACE", target: target})
		if got := res.Header.Get("Allow"); got != want {
			t.Errorf("%s: Allow %q, want %q", target, got, want)
		}
	}
}

// A touch changes the deadline and the ETag, and answers as a put of a key that exists.
func TestTouch(t *testing.T) {
	f := newFixture(t)
	res, _ := f.expect(201, call{"PUT", "/api/v1/keys/k", []string{"X-Kvstore-Tags: a=b"}, "value"})
	tag := res.Header.Get("ETag")
	res, _ = f.expect(204, call{"PATCH", "/api/v1/keys/k", []string{"X-Kvstore-Ttl: 60", "If-Match: " + tag}, ""})
	if res.Header.Get("X-Kvstore-Expires-At") != "2027-01-15T08:01:00.000Z" || res.Header.Get("X-Kvstore-Version") != "2" || res.Header.Get("ETag") == tag {
		t.Errorf("touched: %v", res.Header)
	}
	res, body := f.expect(200, call{method: "GET", target: "/api/v1/keys/k"})
	if body != "value" || res.Header.Get("X-Kvstore-Tags") != "a=b" || res.Header.Get("X-Kvstore-Expires-At") != "2027-01-15T08:01:00.000Z" {
		t.Errorf("read: %q, %v", body, res.Header)
	}
	if res, _ = f.expect(204, call{method: "PATCH", target: "/api/v1/keys/k?persist=true"}); res.Header.Get("X-Kvstore-Expires-At") != "" {
		t.Errorf("persistent: %v", res.Header)
	}
	f.expect(412, call{"PATCH", "/api/v1/keys/k?persist=true", []string{"If-Match: " + tag}, ""})
	f.expect(412, call{method: "PATCH", target: "/api/v1/keys/none?persist=true"})
	f.expect(400, call{method: "PATCH", target: "/api/v1/keys/k?persist=perhaps"})
	_, body = f.expect(200, call{method: "POST", target: "/api/v1/transaction", body: `{"operations":[{"type":"TOUCH","key":"k","ttl_seconds":60},{"type":"GET","key":"k","keys_only":true}]}`})
	if !strings.Contains(body, `"type":"TOUCH"`) || !strings.Contains(body, `"expires_at":"2027-01-15T08:01:00.000Z"`) {
		t.Errorf("in a transaction: %s", body)
	}
}

// A touch that would do nothing says in REST's words what it takes.
func TestTouchSaysWhatItTakes(t *testing.T) {
	for _, c := range []struct{ query, body, want string }{
		{"", "newvalue", "a PATCH has no body; it takes the query parameters ttl_seconds, expires_at and persist"},
		{"?persist", `{"ttl_seconds":5}`, "a PATCH has no body; it takes the query parameters ttl_seconds, expires_at and persist"},
		{"", "", "a PATCH needs one of the query parameters ttl_seconds, expires_at and persist"},
		{"?persist=false", "", "a PATCH needs one of the query parameters ttl_seconds, expires_at and persist"},
		{"?persist&ttl_seconds=5", "", "persist excludes ttl_seconds and expires_at"},
		{"?ttl_seconds=5&expires_at=2027-01-31T12:00:00Z", "", "ttl_seconds and expires_at exclude each other"},
	} {
		f := newFixture(t)
		f.put("k", "v")
		if p := f.problem(400, call{"PATCH", "/api/v1/keys/k" + c.query, nil, c.body}); p.Detail != c.want {
			t.Errorf("%q with %q: %q", c.query, c.body, p.Detail)
		}
	}
	f := newFixture(t)
	if p := f.problem(400, call{"PUT", "/api/v1/keys/k?ttl_seconds=5", []string{"X-Kvstore-Expires-At: 2027-01-31T12:00:00Z"}, "v"}); p.Detail != "ttl_seconds and expires_at exclude each other" {
		t.Errorf("%+v", p)
	}
}

// Consistency, deadline and revision reach the backend.
func TestReadOptions(t *testing.T) {
	f := newFixture(t)
	f.put("k", "v")
	var seen *api.GetRequest
	var left bool
	f.backend.Fail = func(ctx context.Context, op *api.PipelineOp) error {
		seen = op.GetGet()
		_, left = ctx.Deadline()
		return nil
	}
	res, _ := f.expect(200, call{method: "GET", target: "/api/v1/keys/k?consistency=bounded_staleness&max_staleness_ms=250&timeout_ms=900"})
	if seen.Consistency != api.Consistency_CONSISTENCY_BOUNDED_STALENESS || seen.MaxStalenessMs != 250 || !left {
		t.Errorf("request %v, deadline %v", seen, left)
	}
	if res.Header.Get("X-Kvstore-Consistency") != "bounded_staleness" {
		t.Errorf("headers %v", res.Header)
	}
	at := strconv.FormatUint(1<<63+5, 10)
	f.expect(200, call{method: "GET", target: "/api/v1/keys/k?at_revision=" + at})
	if seen.AtRevision != 1<<63+5 {
		t.Errorf("revision %d", seen.AtRevision)
	}
}

// A record stored over gRPC may hold what HTTP headers cannot say.
func TestUnspeakableHeadersAreLeftOut(t *testing.T) {
	f := newFixture(t)
	call1 := &api.PipelineOp{Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: "k", ContentType: "text/plain\r\nX-Evil: 1", Encoding: "é"}}}
	if _, err := f.server.do(t.Context(), call1); err != nil {
		t.Fatal(err)
	}
	res, _ := f.expect(200, call{method: "GET", target: "/api/v1/keys/k"})
	if res.Header.Get("Content-Type") != defaultContentType || res.Header.Get("Content-Encoding") != "" || res.Header.Get("X-Evil") != "" {
		t.Errorf("headers %v", res.Header)
	}
}
