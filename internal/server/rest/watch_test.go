package rest

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/watch"
	"kvstore/internal/watch/watchtest"
)

// withWatches gives the fixture's server watches over real groups.
func withWatches(f *fixture) { f.watches() }

func (f *fixture) watches() *watchtest.Node {
	f.t.Helper()
	n := watchtest.New(f.t, 2, nil)
	f.server.o.Watches = n.Hub(func(o *watch.Options) { o.ProgressEvery = 10 * time.Millisecond })
	return n
}

// sse is an open stream of events.
type sse struct {
	t     *testing.T
	lines *bufio.Scanner
	id    string
}

func (f *fixture) follow(url, lastID string) *sse {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = res.Body.Close() })
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
		f.t.Fatalf("status %d, %s", res.StatusCode, got)
	}
	return &sse{t: f.t, lines: bufio.NewScanner(res.Body)}
}

// next returns the next event as "name id? data", as a browser would dispatch it.
func (s *sse) next() (name, data string, hasID bool) {
	s.t.Helper()
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "id":
			s.id, hasID = value, true
		case "data":
			data = value
		case "":
			if data != "" {
				return name, data, hasID
			}
			name, hasID = "", false
		}
	}
	s.t.Fatalf("the stream ended: %v", s.lines.Err())
	return "", "", false
}

func (s *sse) expect(name string, hasID bool, parts ...string) {
	s.t.Helper()
	n, data, id := s.next()
	if n != name || id != hasID {
		s.t.Errorf("event %s %s, id %t; want %s, id %t", n, data, id, name, hasID)
	}
	for _, p := range parts {
		if !strings.Contains(data, p) {
			s.t.Errorf("event %s %s has no %s", n, data, p)
		}
	}
}

// skipTo reads comments until one of them has another id.
func (s *sse) opened() {
	s.t.Helper()
	for s.id == "" && s.lines.Scan() {
		if id, ok := strings.CutPrefix(s.lines.Text(), "id: "); ok {
			s.id = id
		}
	}
}

func TestWatchStream(t *testing.T) {
	f := newFixture(t)
	n := f.watches()
	server := httptest.NewServer(f.server)
	t.Cleanup(server.Close)
	s := f.follow(server.URL+watchPath+"/{h}?previous=1", "")
	s.opened()
	n.Put("{h}1", "one")
	n.Put("other", "x")
	n.Write(watchtest.PutOp("{h}1", "two"), watchtest.PutOp("{h}2", "two"))
	n.Write(watchtest.DeleteOp("{h}1"))
	s.expect("put", true, `"key":"{h}1"`, `"value":"one"`)
	first := s.id
	s.expect("put", false, `"key":"{h}1"`, `"value":"two"`, `"previous":{`, `"value":"one"`)
	s.expect("put", true, `"key":"{h}2"`)
	s.expect("delete", true, `"key":"{h}1"`, `"reason":"deleted"`, `"previous":{`)

	again := f.follow(server.URL+watchPath+"/{h}?keys_only=1", first)
	again.expect("put", false, `"key":"{h}1"`, `"size":3`)
	again.expect("put", true, `"key":"{h}2"`)
	again.expect("delete", true, `"key":"{h}1"`)
	one := f.follow(server.URL+watchPath+"/{h}2?exact=1&token="+first, "")
	one.expect("put", true, `"key":"{h}2"`)

	f.server.o.Watches.Drain()
	s.expect("end", false, `"code":"unavailable"`)
}

func TestWatchRefusals(t *testing.T) {
	f := newFixture(t)
	if p := f.problem(http.StatusNotImplemented, call{method: "GET", target: watchPath + "/a"}); p.Code != fault.Unsupported {
		t.Errorf("without watches: %+v", p)
	}
	f.watches()
	for target, code := range map[string]fault.Code{
		watchPath + "/a?start=b":          fault.InvalidArgument,
		watchPath + "/a?token=%21":        fault.InvalidToken,
		watchPath + "/a?token=AAAA":       fault.InvalidToken,
		watchPath + "/a?after_revision=x": fault.InvalidArgument,
		watchPath + "/a?tag=x":            fault.InvalidArgument,
		watchPath + "/a?timeout_ms=1":     fault.InvalidArgument,
		watchPath + "/a?exact=1&after_revision=1&token=AXcBAP8fgIDEzoC6htEB-pgO8g": fault.InvalidArgument,
	} {
		if p := f.problem(http.StatusBadRequest, call{method: "GET", target: target}); p.Code != code {
			t.Errorf("%s: %s", target, p.Code)
		}
	}
}
