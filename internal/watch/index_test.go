package watch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

func mustPattern(t testing.TB, q *api.WatchCreate) *pattern {
	t.Helper()
	p, err := newPattern(keyspace.DefaultNamespace, q)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func diskKey(key string) []byte {
	return keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(key))
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		q        *api.WatchCreate
		has, not []string
		single   bool
	}{
		{&api.WatchCreate{Key: "a"}, []string{"a"}, []string{"", "a\x00", "aa", "b"}, true},
		{&api.WatchCreate{Prefix: "a"}, []string{"a", "a\x00", "ab", "a{x}"}, []string{"", "b", "A"}, false},
		{&api.WatchCreate{Prefix: "{a}"}, []string{"{a}", "{a}b"}, []string{"{a", "{ab}"}, true},
		{&api.WatchCreate{Prefix: "{}"}, []string{"{}"}, []string{"{a}"}, false},
		{&api.WatchCreate{}, []string{"", "a", "\xff"}, nil, false},
		{&api.WatchCreate{Start: "b", End: "d"}, []string{"b", "b\x00", "c"}, []string{"a", "d", "da"}, false},
		{&api.WatchCreate{Start: "b"}, []string{"b", "z"}, []string{"a"}, false},
		{&api.WatchCreate{End: "b"}, []string{"", "a"}, []string{"b"}, false},
	} {
		p := mustPattern(t, c.q)
		if p.single != c.single {
			t.Errorf("%v: single is %t", c.q, p.single)
		}
		for _, key := range append(slices.Clone(c.has), c.not...) {
			want := slices.Contains(c.has, key)
			s := p.span()
			in := slices.Compare(diskKey(key), s.Lower) >= 0 && (len(s.Upper) == 0 || slices.Compare(diskKey(key), s.Upper) < 0)
			if got := p.has(diskKey(key)); got != want || in != want {
				t.Errorf("%v has %q: %t, by its span %t, want %t", c.q, key, got, in, want)
			}
		}
		if other := keyspace.AppendDataKey(nil, keyspace.DefaultNamespace+1, []byte("b")); p.has(other) {
			t.Errorf("%v has a key of another namespace", c.q)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	long := string(make([]byte, keyspace.MaxKeyBytes+1))
	for _, c := range []struct {
		q    *api.WatchCreate
		code fault.Code
	}{
		{&api.WatchCreate{Key: "a", Prefix: "a"}, fault.InvalidArgument},
		{&api.WatchCreate{Key: "a", End: "b"}, fault.InvalidArgument},
		{&api.WatchCreate{Prefix: "a", Start: "b"}, fault.InvalidArgument},
		{&api.WatchCreate{Start: "b", End: "b"}, fault.InvalidArgument},
		{&api.WatchCreate{Start: "c", End: "b"}, fault.InvalidArgument},
		{&api.WatchCreate{Prefix: long}, fault.KeyTooLarge},
		{&api.WatchCreate{Key: long}, fault.KeyTooLarge},
	} {
		if _, err := newPattern(keyspace.DefaultNamespace, c.q); fault.CodeOf(err) != c.code {
			t.Errorf("%.60v: %v, want %s", c.q, err, c.code)
		}
	}
}

func TestPositions(t *testing.T) {
	key := mustPattern(t, &api.WatchCreate{Key: "a"})
	all := mustPattern(t, &api.WatchCreate{Prefix: "a"})
	whole := func(rev keyspace.Revision) format.WatchToken {
		return format.WatchToken{{First: 0, Last: keyspace.SlotCount - 1, Revision: rev}}
	}
	uneven := format.WatchToken{{First: 0, Last: key.slot - 1, Revision: 5}, {First: key.slot, Last: keyspace.SlotCount - 1, Revision: 7}}
	for _, c := range []struct {
		name string
		p    *pattern
		q    *api.WatchCreate
		want keyspace.Revision
		now  bool
		code fault.Code
	}{
		{name: "now", p: all, q: &api.WatchCreate{}, now: true},
		{name: "revision", p: all, q: &api.WatchCreate{AfterRevision: 9}, want: 9},
		{name: "token", p: all, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, whole(4))}, want: 4},
		{name: "uneven", p: all, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven)}, want: 5},
		{name: "one slot", p: key, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven)}, want: 7},
		{name: "its slot", p: key, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven[1:])}, want: 7},
		{name: "other slots", p: key, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven[:1])}, code: fault.InvalidToken},
		{name: "a part", p: all, q: &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven[:1])}, code: fault.InvalidToken},
		{name: "both", p: all, q: &api.WatchCreate{AfterRevision: 1, Token: format.AppendWatchToken(nil, whole(4))}, code: fault.InvalidArgument},
		{name: "damaged", p: all, q: &api.WatchCreate{Token: []byte("x")}, code: fault.InvalidToken},
	} {
		at, err := newPosition(c.p, c.q)
		if fault.CodeOf(err) != c.code || at.rev != c.want || at.now != c.now {
			t.Errorf("%s: %+v, %v", c.name, at, err)
		}
	}
	at, err := newPosition(all, &api.WatchCreate{Token: format.AppendWatchToken(nil, uneven)})
	if err != nil {
		t.Fatal(err)
	}
	other := "b"
	for keyspace.SlotOf(keyspace.DefaultNamespace, other) >= key.slot {
		other += "b"
	}
	for _, c := range []struct {
		key   string
		rev   keyspace.Revision
		knows bool
	}{{other, 5, true}, {other, 6, false}, {"a", 6, true}, {"a", 7, true}, {"a", 8, false}} {
		if got := at.knows(&event{key: diskKey(c.key), rev: c.rev}); got != c.knows {
			t.Errorf("the event of %q at %d is known: %t", c.key, c.rev, got)
		}
	}
}

// TestIndexFindsEveryWatch holds the index against looking at all watches, while
// they come and go.
func TestIndexFindsEveryWatch(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		text := func() string {
			b := make([]byte, random.IntN(4))
			for i := range b {
				b[i] = "abc{}\x00"[random.IntN(6)]
			}
			return string(b)
		}
		x := newIndex()
		var all []*watch
		for step := range 400 {
			switch {
			case len(all) > 0 && random.IntN(3) == 0:
				i := random.IntN(len(all))
				x.remove(all[i])
				all = slices.Delete(all, i, i+1)
			default:
				w := &watch{id: uint64(step), pattern: randomPattern(random, text)}
				x.add(w)
				all = append(all, w)
			}
			key := diskKey(text())
			var got, want []string
			x.match(key, func(w *watch) { got = append(got, fmt.Sprint(w.id)) })
			for _, w := range all {
				if w.pattern.has(key) {
					want = append(want, fmt.Sprint(w.id))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || x.count != len(all) {
				t.Fatalf("seed %d step %d key %q: found %v of %d, want %v of %d", seed, step, key, got, x.count, want, len(all))
			}
		}
	}
}

func randomPattern(random *rand.Rand, text func() string) *pattern {
	for {
		q := &api.WatchCreate{}
		switch random.IntN(3) {
		case 0:
			q.Key = text()
		case 1:
			q.Prefix = text()
		default:
			q.Start, q.End = text(), text()
		}
		if p, err := newPattern(keyspace.DefaultNamespace, q); err == nil {
			return &p
		}
	}
}
