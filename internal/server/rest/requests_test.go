package rest

import (
	"encoding/json"
	"strings"
	"testing"
)

// F2: a request with an id is executed once, and its outcome can be asked for.
func TestRequestIDs(t *testing.T) {
	f := newFixture(t)
	resp, text := f.expect(201, call{method: "POST", target: "/api/v1/requests"})
	var made struct {
		ID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.ID) != 26 || resp.Header.Get("Location") != "/api/v1/requests/"+made.ID {
		t.Fatalf("%s %v", text, resp.Header)
	}
	named := []string{"Content-Type: application/json", "Request-Id: " + made.ID}
	body := `{"then":[{"type":"PUT","key":"a","value":"1","conditions":{"must_not_exist":true}}]}`
	_, first := f.expect(200, call{"POST", txnPath, named, body})
	if _, again := f.expect(200, call{"POST", txnPath, named, body}); again != first {
		t.Fatalf("%s\n%s", again, first)
	}
	in := strings.Replace(body, "{", `{"request_id":"`+made.ID+`",`, 1)
	if _, again := f.expect(200, call{"POST", txnPath, named[:1], in}); again != first {
		t.Fatalf("%s\n%s", again, first)
	}
	f.expect(400, call{"POST", txnPath, named, strings.Replace(in, made.ID, "06h1l51rd0000abckvutghq468", 1)})
	f.expect(400, call{"POST", txnPath, named, strings.Replace(body, "1", "2", 1)})
	f.expect(400, call{"PUT", "/api/v1/keys/b", []string{"Request-Id: malformed"}, "v"})
	f.expect(201, call{"PUT", "/api/v1/keys/b", []string{"Request-Id: 06h1l51rd0000abckvutghq468"}, "v"})
	f.expect(201, call{"PUT", "/api/v1/keys/b", []string{"Request-Id: 06h1l51rd0000abckvutghq468"}, "v"})
	_, text = f.expect(200, call{method: "GET", target: "/api/v1/requests/" + made.ID})
	var out struct {
		State, Revision string
		Succeeded       bool
		Answer          struct{ Results []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil || out.State != "committed" || out.Revision == "0" || !out.Succeeded || len(out.Answer.Results) != 1 {
		t.Fatalf("%s", text)
	}
	if _, text = f.expect(200, call{method: "GET", target: "/api/v1/requests/06h1l51rd0000abckvutghq46g"}); !strings.Contains(text, `"state":"unknown"`) {
		t.Fatal(text)
	}
}
