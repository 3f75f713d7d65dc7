package router

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// collection is a node that leads all groups, of which the first has an old record.
type collection struct {
	*fixture
	logs bytes.Buffer
	// oldest is what groups have prepared when they are asked for the n-th time; nil
	// answers that nothing is.
	oldest func(g keyspace.GroupID, n int) (keyspace.Revision, error)
	asked  []string
	times  map[keyspace.GroupID]int
	forgot int
}

const oldRecord = keyspace.Revision(100 << 16)

func newCollection(t *testing.T) *collection {
	t.Helper()
	c := &collection{times: map[keyspace.GroupID]int{}}
	c.fixture = newFixture(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&c.logs, nil)) })
	c.txns.janitor.keep = 0
	c.host.rev = keyspace.RevisionAt(200)
	key := keyspace.TxnKey{ID: keyspace.TxnID{Created: oldRecord, Random: 1}, Slot: 0}.Key()
	c.host.data[dataKey(keyspace.TxnNamespace, key)] = &format.Record{Header: format.Header{Revision: 1}}
	c.host.submit = c.submit
	c.dir.refresh = func(*Map) error {
		c.asked = append(c.asked, "map")
		return nil
	}
	return c
}

func (c *collection) submit(rs []*replica.Request) bool {
	for _, q := range rs {
		switch {
		case q.Low != nil:
			c.low(q)
		case q.Forget != nil:
			c.asked, c.forgot = append(c.asked, "forget"), c.forgot+len(q.Forget.Keys)
			q.Forget.Forgotten = len(q.Forget.Keys)
			clear(c.host.data)
		}
		q.Done(q)
	}
	return true
}

func (c *collection) low(q *replica.Request) {
	name := "ask"
	if q.Low.Raise > 0 {
		name = "raise"
	}
	c.asked = append(c.asked, fmt.Sprintf("%s %d", name, q.Group))
	q.Low.LowWater, q.Low.Oldest = q.Low.Raise, keyspace.MaxRevision
	if c.times[q.Group]++; c.oldest != nil {
		q.Low.Oldest, q.Err = c.oldest(q.Group, c.times[q.Group])
	}
}

// DESIGN 9, ADR 0017: the group raises its mark and tells what is prepared in it in
// one step; then all other data groups are asked, also those that own nothing by the
// map; then the group forgets.
func TestCollectionAsksOwnGroupFirst(t *testing.T) {
	c := newCollection(t)
	c.host.give(4, 5, c.host.set(4)) // the map does not know: group 4 owns all of its slots
	c.dir.m.Groups = 5
	if err := c.collectGroup(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want := []string{"raise 1", "map", "ask 2", "ask 3", "ask 4", "ask 5", "forget"}
	if !slices.Equal(c.asked, want) || c.forgot != 1 {
		t.Fatalf("%q, %d forgotten; want %q", c.asked, c.forgot, want)
	}
}

// What is prepared in the group itself at the raise may be committed before it could
// be asked again, by when others may have it still to come.
func TestCollectionStopsAtWhatIsPrepared(t *testing.T) {
	for g := keyspace.GroupID(1); g <= testGroups; g++ {
		t.Run(fmt.Sprint(g), func(t *testing.T) {
			c := newCollection(t)
			c.oldest = func(at keyspace.GroupID, n int) (keyspace.Revision, error) {
				if at == g && n == 1 {
					return oldRecord, nil
				}
				return keyspace.MaxRevision, nil
			}
			if err := c.collectGroup(t.Context(), 1); err != nil || c.forgot != 0 {
				t.Fatalf("%v, %d forgotten of %q", err, c.forgot, c.asked)
			}
			if g == 1 && !slices.Equal(c.asked, []string{"raise 1"}) {
				t.Errorf("others were asked: %q", c.asked)
			}
			if s := c.TransactionStats(); s.CollectionsHeld != 1 || s.CollectionsFailed != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A group that cannot be asked, or a map that cannot be read, keeps everything.
func TestCollectionStopsAtSilence(t *testing.T) {
	for name, change := range map[string]func(*collection){
		"group": func(c *collection) {
			c.oldest = func(g keyspace.GroupID, _ int) (keyspace.Revision, error) {
				if g == 3 {
					return 0, fault.New(fault.Internal, "no answer")
				}
				return keyspace.MaxRevision, nil
			}
		},
		"map": func(c *collection) {
			c.dir.refresh = func(*Map) error { return fault.New(fault.Unavailable, "no answer") }
		},
		"no map": func(c *collection) { c.dir.m.Groups = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollection(t)
			change(c)
			lead := []keyspace.GroupID{1}
			c.collectGroups(context.Background(), lead)
			c.collectGroups(context.Background(), lead)
			if c.forgot != 0 || len(c.host.data) != 1 {
				t.Fatalf("%d forgotten of %q", c.forgot, c.asked)
			}
			if s := c.TransactionStats(); s.CollectionsFailed != 2 || s.CollectionsHeld != 0 || s.Collected != 0 {
				t.Errorf("%+v", s)
			}
			if n := strings.Count(c.logs.String(), "level=WARN"); n != 1 || !strings.Contains(c.logs.String(), "group=1") {
				t.Errorf("%d warnings: %s", n, c.logs.String())
			}
			c.oldest, c.dir.refresh = nil, nil
			c.dir.m.Groups = testGroups
			if c.collectGroups(context.Background(), lead); c.forgot != 1 || !strings.Contains(c.logs.String(), "level=INFO") {
				t.Errorf("%d forgotten in the end: %s", c.forgot, c.logs.String())
			}
		})
	}
}
