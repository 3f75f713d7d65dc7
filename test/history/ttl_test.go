package history

import (
	"strings"
	"testing"
	"time"
)

// TestTTL: each anomaly is found and named, and what is allowed is not.
func TestTTL(t *testing.T) {
	const s = int64(time.Second)
	first := DatedWrite{Key: "k", Value: "a", Span: Span{0, 1 * s}, Expires: 10 * s}
	second := DatedWrite{Key: "k", Value: "b", Span: Span{4 * s, 5 * s}, Expires: 20 * s}
	unsure := DatedWrite{Key: "k", Value: "b", Outcome: Unknown, Span: Span{4 * s, Forever}, Expires: 5 * s}
	found := func(from, to int64, value string, expires int64) DatedRead {
		return DatedRead{"k", Span{from * s, to * s}, true, value, expires * s}
	}
	missing := func(from, to int64) DatedRead { return DatedRead{Key: "k", Span: Span{from * s, to * s}} }
	for _, tc := range []struct {
		name     string
		want     string // "" for nothing
		writes   []DatedWrite
		reads    []DatedRead
		expiries []Expiry
	}{
		{"there, then gone", "", []DatedWrite{first}, []DatedRead{found(2, 3, "a", 10), missing(11, 12)}, []Expiry{{"k", 10 * s}}},
		{"not there yet", "", []DatedWrite{first}, []DatedRead{{Key: "k", Span: Span{0, 1}}}, nil},
		{"a little early and late", "", []DatedWrite{first}, []DatedRead{missing(8, 9), found(0, 1, "a", 10)}, nil},
		{"early", "ttl: early", []DatedWrite{first}, []DatedRead{missing(2, 3)}, nil},
		{"late", "ttl: late", []DatedWrite{first}, []DatedRead{found(13, 14, "a", 10)}, nil},
		{"came back", "ttl: came back", []DatedWrite{first}, []DatedRead{missing(8, 9), found(10, 11, "a", 10)}, nil},
		{"another deadline", "ttl: deadline", []DatedWrite{first}, []DatedRead{found(2, 3, "a", 11)}, nil},
		{"overwritten", "", []DatedWrite{first, second}, []DatedRead{found(2, 3, "a", 10), found(12, 13, "b", 20), missing(20, 21)}, nil},
		{"overwritten and seen before", "ttl: wrong value", []DatedWrite{first, second}, []DatedRead{found(6, 7, "a", 10)}, nil},
		{"gone by the first deadline", "ttl: early", []DatedWrite{first, second}, []DatedRead{missing(12, 13)}, nil},
		{"unknown, happened and expired", "", []DatedWrite{first, unsure}, []DatedRead{missing(6, 7)}, nil},
		{"unknown, did not happen", "", []DatedWrite{first, unsure}, []DatedRead{found(6, 7, "a", 10)}, nil},
		{"deleted before its deadline", "ttl: early", []DatedWrite{first}, nil, []Expiry{{"k", 9 * s}}},
		{"deleted without one", "ttl: early", []DatedWrite{first}, nil, []Expiry{{"z", 9 * s}}},
		{"written after an unknown outcome", MalformedHistory, []DatedWrite{unsure, {Key: "k", Value: "c", Span: Span{6 * s, 7 * s}}}, nil, nil},
	} {
		text := Report(TTL{Early: 1500 * time.Millisecond, Late: 2 * time.Second}.Check(tc.writes, tc.reads, tc.expiries))
		if (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
			t.Errorf("%s: want %q, found %q", tc.name, tc.want, text)
		}
	}
}

// TestFencing: each anomaly is found and named, and what is allowed is not.
func TestFencing(t *testing.T) {
	grants := []Grant{{1, 10, Span{0, 5}}, {2, 20, Span{20, 25}}}
	write := func(holder int, token uint64, at int64, revision uint64) Guarded {
		return Guarded{Holder: holder, Token: token, Revision: revision, Span: Span{at, at + 5}}
	}
	refused := write(1, 10, 50, 0)
	refused.Outcome = Aborted
	lost := write(1, 10, 50, 0)
	lost.Outcome = Unknown
	for _, tc := range []struct {
		name   string
		want   string // "" for nothing
		grants []Grant
		writes []Guarded
	}{
		{"in order", "", grants, []Guarded{write(1, 10, 10, 100), write(2, 20, 30, 300)}},
		{"an old holder beside the new one", "", grants, []Guarded{write(1, 10, 32, 200), write(2, 20, 30, 300)}},
		{"an old holder is refused", "", grants, []Guarded{write(2, 20, 30, 300), refused}},
		{"an old holder hears nothing", "", grants, []Guarded{write(2, 20, 30, 300), lost}},
		{"an old holder is accepted", "fencing: old token", grants, []Guarded{write(2, 20, 30, 0), write(1, 10, 50, 0)}},
		{"an old holder comes later by revision", "fencing: old token", grants, []Guarded{write(2, 20, 30, 300), write(1, 10, 32, 400)}},
		{"a token of somebody else", "fencing: foreign token", grants, []Guarded{write(1, 20, 30, 300)}},
		{"a token of nobody", "fencing: foreign token", grants, []Guarded{write(1, 11, 30, 300)}},
		{"two holders", "fencing: token twice", append(grants, Grant{3, 20, Span{30, 35}}), nil},
		{"tokens go back", "fencing: tokens go back", append(grants, Grant{3, 15, Span{30, 35}}), nil},
		{"grants overlap", "", append(grants, Grant{3, 15, Span{3, 35}}), nil},
	} {
		text := Report(CheckFencing(tc.grants, tc.writes))
		if (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
			t.Errorf("%s: want %q, found %q", tc.name, tc.want, text)
		}
	}
}
