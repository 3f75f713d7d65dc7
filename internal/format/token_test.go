package format

import (
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestListTokenRoundTrip(t *testing.T) {
	for _, want := range []ListToken{
		{},
		{Namespace: 1, Revision: 2, Filter: 3, Reverse: true, LastKey: "a"},
		{Namespace: 1<<32 - 1, Revision: keyspace.MaxRevision, Filter: 1<<64 - 1, LastKey: strings.Repeat("ü", keyspace.MaxKeyBytes/2)},
	} {
		got, err := ParseListToken(EncodeListToken(want))
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestListTokenRefusesAnyChangedBit(t *testing.T) {
	b := AppendListToken(nil, ListToken{Namespace: 7, Revision: 9, LastKey: "key"})
	for i := range len(b) * 8 {
		c := append([]byte(nil), b...)
		c[i/8] ^= 1 << (i % 8)
		if _, err := DecodeListToken(c); fault.CodeOf(err) != fault.InvalidToken {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

func FuzzListToken(f *testing.F) {
	f.Add(EncodeListToken(ListToken{Namespace: 1, Revision: 5, LastKey: "a/b"}))
	f.Add("AQAAAAABAAAAAAAAAAUAAAA\nAAAAAAGEvYmsf5Ik")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseListToken(s)
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidToken {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if again := EncodeListToken(tok); again != s {
			t.Fatalf("%q decodes to %+v which encodes to %q", s, tok, again)
		}
	})
}
