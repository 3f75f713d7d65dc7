package concurrency

import (
	"testing"

	"kvstore/client"
)

// TestTwoKeysOfOneRevision: of the keys that were created at one revision one stays
// in the queue, whoever looks.
func TestTwoKeysOfOneRevision(t *testing.T) {
	keys := map[string]uint64{"p/c": 7, "p/b": 9, "p/a": 9, "p/d": 12}
	for key, want := range map[string]place{
		"p/c": {},
		"p/a": {before: "p/c"},
		"p/b": {before: "p/c", tied: true},
		"p/d": {before: "p/a"}, // or p/b: one of them goes anyway
	} {
		p := place{key: key, created: keys[key]}
		for _, other := range []string{"p/a", "p/b", "p/c", "p/d"} {
			p.see(&client.Record{Key: other, CreatedRevision: keys[other]})
		}
		if !p.present || p.tied != want.tied || p.before != want.before {
			t.Errorf("%s: %+v, want %+v", key, p, want)
		}
	}
	all := map[string]Leader{"p/b": {Key: "p/b", Token: 9}, "p/a": {Key: "p/a", Token: 9}}
	if l, ok := leaderOf(all); !ok || l.Key != "p/a" {
		t.Errorf("the leader is %v", l)
	}
	gone := place{key: "p/x", created: 9}
	if gone.see(&client.Record{Key: "p/x", CreatedRevision: 8}); gone.present {
		t.Error("another life of the key counts as it")
	}
}
