package txnform

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

func parse(t *testing.T, text string) (*api.TransactionRequest, error) {
	t.Helper()
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f.Request()
}

// S3.9's own example, in both languages, means the same.
func TestExampleOfTheRequirements(t *testing.T) {
	texts := []string{
		`{"operations":[{"type":"PUT","key":"user:123:profile","value":"{}","conditions":{"if_version_match":5}},
		{"type":"DELETE","key":"user:123:temp_data"},{"type":"PUT","key":"user:123:last_login","value":"now","ttl_seconds":86400}]}`,
		`
operations:
  - type: PUT
    key: user:123:profile
    value: "{}"
    conditions:
      if_version_match: 5
  - {type: delete, key: "user:123:temp_data"}
  - type: put
    key: user:123:last_login
    value: now
    ttl_seconds: 86400
`}
	version := uint64(5)
	want := &api.TransactionRequest{Then: []*api.TransactionOp{
		{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "user:123:profile", Value: []byte("{}"), Condition: &api.Condition{VersionMatch: &version}}}},
		{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Key: "user:123:temp_data"}}},
		{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "user:123:last_login", Value: []byte("now"), TtlSeconds: 86400}}},
	}}
	for i, text := range texts {
		got, err := parse(t, text)
		if err != nil || !proto.Equal(got, want) {
			t.Fatalf("%d: %v, %v", i, got, err)
		}
	}
}

func TestRequests(t *testing.T) {
	got, err := parse(t, `{"namespace":"n","checks":[{"namespace":"m","key":"c","revision_match":"18446744073709551615"},
		{"key":"d","value_equals_base64":"_wA","must_exist":true}],
		"then":[{"type":"get","key":"g","keys_only":true,"namespace":"m"}],
		"otherwise":[{"type":"put","key":"p","value_base64":"/wA=","checksum":"0000000a","expires_at":"2027-01-31T12:00:00Z","tags":{"a":"b"}},
		{"type":"delete","key":"x","condition":{"value_equals":""}},{"type":"touch","key":"t","persist":true},
		{"type":"Touch","key":"u","expires_at":"2027-01-31T12:00:00Z","condition":{"version_match":10}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	most, ten, sum := ^uint64(0), uint64(10), uint32(10)
	want := &api.TransactionRequest{Namespace: "n",
		Checks: []*api.TransactionCheck{
			{Namespace: "m", Key: "c", Condition: &api.Condition{RevisionMatch: &most}},
			{Key: "d", Condition: &api.Condition{ValueEquals: []byte{0xff, 0}, MustExist: true}}},
		Then: []*api.TransactionOp{{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Namespace: "m", Key: "g", KeysOnly: true}}}},
		Otherwise: []*api.TransactionOp{
			{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "p", Value: []byte{0xff, 0}, Checksum: &sum, ExpiresAtMs: 1801396800000, Tags: map[string]string{"a": "b"}}}},
			{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Key: "x", Condition: &api.Condition{ValueEquals: []byte{}}}}},
			{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: "t", Persist: true}}},
			{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: "u", ExpiresAtMs: 1801396800000, Condition: &api.Condition{VersionMatch: &ten}}}}},
	}
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

func TestLeasesAndChecks(t *testing.T) {
	got, err := parse(t, `{"then":[{"type":"check","key":"c","conditions":{"created_match":"7","lease_match":"l"}},{"type":"PUT","key":"k","value":"","lease":"l"}]}`)
	created, lease := uint64(7), "l"
	want := &api.TransactionRequest{Then: []*api.TransactionOp{
		{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Key: "c", Condition: &api.Condition{CreatedMatch: &created, LeaseMatch: &lease}}}},
		{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "k", Lease: "l"}}},
	}}
	if err != nil || !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v, %v", got, want, err)
	}
}

func TestBadRequests(t *testing.T) {
	for name, c := range map[string]struct{ text, list, member string }{
		"two lists":        {`{"operations":[],"then":[]}`, "", ""},
		"no type":          {`{"then":[{"key":"k"}]}`, "then", "type"},
		"no value":         {`{"operations":[{"type":"PUT","key":"k"}]}`, "operations", "value"},
		"two values":       {`{"otherwise":[{"type":"PUT","key":"k","value":"a","value_base64":"YQ=="}]}`, "otherwise", "value"},
		"base64":           {`{"then":[{"type":"PUT","key":"k","value_base64":"!"}]}`, "then", "value_base64"},
		"checksum":         {`{"then":[{"type":"PUT","key":"k","value":"","checksum":"1"}]}`, "then", "checksum"},
		"expiry":           {`{"then":[{"type":"PUT","key":"k","value":"","expires_at":"soon"}]}`, "then", "expires_at"},
		"keys only":        {`{"then":[{"type":"PUT","key":"k","value":"","keys_only":true}]}`, "then", "keys_only"},
		"delete keys only": {`{"then":[{"type":"DELETE","key":"k","keys_only":true}]}`, "then", "keys_only"},
		"value of delete":  {`{"then":[{"type":"DELETE","key":"k","value":""}]}`, "then", "value"},
		"ttl of get":       {`{"then":[{"type":"GET","key":"k","ttl_seconds":1}]}`, "then", "ttl_seconds"},
		"value of touch":   {`{"then":[{"type":"TOUCH","key":"k","value":"v","persist":true}]}`, "then", "value"},
		"persistent put":   {`{"then":[{"type":"PUT","key":"k","value":"v","persist":true}]}`, "then", "persist"},
		"touch keys only":  {`{"then":[{"type":"TOUCH","key":"k","persist":true,"keys_only":true}]}`, "then", "keys_only"},
		"touched soon":     {`{"then":[{"type":"TOUCH","key":"k","expires_at":"soon"}]}`, "then", "expires_at"},
		"condition of get": {`{"then":[{"type":"GET","key":"k","conditions":{"must_exist":true}}]}`, "then", "conditions"},
		"both names":       {`{"then":[{"type":"DELETE","key":"k","conditions":{},"condition":{}}]}`, "then", "conditions"},
		"twice":            {`{"checks":[{"key":"k","version_match":1,"if_version_match":1}]}`, "checks", "conditions"},
		"lease of delete":  {`{"then":[{"type":"DELETE","key":"k","lease":"l"}]}`, "then", "lease"},
		"check keys only":  {`{"then":[{"type":"CHECK","key":"k","keys_only":true}]}`, "then", "keys_only"},
		"empty lease":      {`{"then":[{"type":"PUT","key":"k","value":"","lease":""}]}`, "then", "lease"},
		"empty fence":      {`{"fence":"","then":[]}`, "", "fence"},
		"bad fence":        {`{"fence":"lock","then":[]}`, "", "fence"},
		"no request id":    {`{"request_id":"","then":[]}`, "", "request_id"},
		"touch of nothing": {`{"then":[{"type":"TOUCH","key":"k"}]}`, "then", "type"},
		"two touches":      {`{"then":[{"type":"TOUCH","key":"k","persist":true,"ttl_seconds":5}]}`, "then", "persist"},
		"two deadlines":    {`{"then":[{"type":"PUT","key":"k","value":"","ttl_seconds":5,"expires_at":"2027-01-31T12:00:00Z"}]}`, "then", "expires_at"},
		"two equals":       {`{"checks":[{"key":"k","value_equals":"","value_equals_base64":""}]}`, "checks", "value_equals"},
	} {
		_, err := parse(t, c.text)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.InvalidArgument || f.Details["list"] != c.list || f.Details["member"] != c.member {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Errors have the path and the line, in the words of the document.
func TestErrorsSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		"then:\n  - {type: PUT, key: k, value: a}\n  - type: PUT\n    key: k\n    value: 5\n": "then[1].value must be a string; quote it (line=5, path=then[1].value)",
		"then:\n- {type: GET, key: 5}":                                "then[0].key must be a string; quote it (line=2, path=then[0].key)",
		"then:\n- type: PUT\n  key: k\n  value: v\n  ttl: 5":          "then[0].ttl is not known; there are type, namespace, key, value, value_base64, content_type, encoding, checksum, ttl_seconds, expires_at, persist, lease, tags, metadata, keys_only, conditions, condition (line=5, path=then[0].ttl)",
		"checks:\n- key: k\n  revision_match: x":                      "checks[0].revision_match cannot be used: a revision must be a whole number, or one as a string (line=3, path=checks[0].revision_match)",
		"then: {type: GET}":                                           "then must be a list (line=1, path=then)",
		"- a":                                                         "the document must be an object, with members that have names (line=1)",
		"\nthen:\n- {type: MOVE, key: k}\n":                           "then[0].type must be PUT, DELETE, TOUCH, GET or CHECK (item=0, line=3, list=then, member=type)",
		"then:\n- type: PUT\n  key: k\n  value: v\n  lease: ''\n":     "then[0].lease is empty (item=0, line=5, list=then, member=lease)",
		"then: []\nfence: ''":                                         "fence must be NAMESPACE/KEY@REVISION, with the key percent-encoded (actual=, line=2, member=fence)",
		"then:\n- {type: PUT, key: k, value: 1.5}":                    "the YAML document has a value that is neither text, a whole number nor a truth value; quote text (column=30, line=2)",
		"{\"then\":\n[{\"type\":\"PUT\",\"key\":\"k\",\"value\":5}]}": "then[0].value must be a string; quote it (line=2, path=then[0].value)",
		"{\"then\":\n[}":                                              "the document is not JSON: invalid character '}' looking for beginning of value (line=2)",
		"{\"then\":[{\"type\":\"PUT\"":                                "the document is not JSON: it ends too early (line=1)",
		"{then: [{type: GET, key: 5}]}":                               "then[0].key must be a string; quote it (line=1, path=then[0].key)",
		" \n":                                                         "the document is empty",
	} {
		f, err := Parse([]byte(text))
		if err == nil {
			_, err = f.Request()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

func toJSON(document []byte) ([]byte, error) {
	root, err := parseYAML(document)
	if err != nil {
		return nil, err
	}
	return appendJSON(nil, root)
}

func TestYAML(t *testing.T) {
	for text, want := range map[string]string{
		`{a: "1", b: 1, c: true, d: ~, e: [x, -2]}`: `{"a":"1","b":1,"c":true,"d":null,"e":["x",-2]}`,
		"at: 2027-01-31T12:00:00Z\nday: 2027-01-31": `{"at":"2027-01-31T12:00:00Z","day":"2027-01-31"}`,
		"n: 18446744073709551615\nhex: 0x10":        `{"n":18446744073709551615,"hex":16}`,
		"text: |\n  two\n  lines\n":                 `{"text":"two\nlines\n"}`,
		`"quoted": "\u00e9"`:                        `{"quoted":"é"}`,
		"a: &x 1\nb: *x":                            "",
		"a: 1\na: 2":                                "",
		"1: a":                                      "",
		"a: 1.5":                                    "",
		"a: !!binary aGk=":                          "",
		"a: 1\n---\nb: 2":                           "",
		"[unclosed":                                 "",
		"":                                          "",
		"? [a, b]\n: c":                             "",
		"<<: {a: 1}":                                "",
		"a: 99999999999999999999999":                "",
		"a: !custom x":                              "",
		strings.Repeat("[", 20000):                  "",
		"a: \"" + strings.Repeat("x", 1<<16) + "\"\nb: 1.0": "",
	} {
		got, err := toJSON([]byte(text))
		switch {
		case want == "" && fault.CodeOf(err) != fault.InvalidArgument:
			t.Errorf("%.40q: %s, %v", text, got, err)
		case want != "" && string(got) != want:
			t.Errorf("%.40q: %s, %v", text, got, err)
		}
	}
}

// Whatever is read as YAML is JSON.
func FuzzJSON(f *testing.F) {
	f.Add("a: 1\nb: [x, {c: true}]")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		if b, err := toJSON([]byte(text)); err == nil && !json.Valid(b) {
			t.Fatalf("%q became %q", text, b)
		}
	})
}
