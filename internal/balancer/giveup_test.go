package balancer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// A learner is given up after a bound without progress, and only then.
func TestLearnersAreGivenUp(t *testing.T) {
	type look struct {
		after   time.Duration // since the last look
		p       host.Progress
		commit  keyspace.Index
		excused bool
	}
	copied := func(sent int64) host.Progress {
		return host.Progress{Active: true, Copy: host.CopyProgress{Sent: sent, Total: 1000}}
	}
	at := func(match keyspace.Index) host.Progress { return host.Progress{Active: true, Match: match} }
	repeat := func(n int, f func(i int) look) (all []look) {
		for i := range n {
			all = append(all, f(i))
		}
		return all
	}
	for _, c := range []struct {
		name  string
		looks []look
		want  string // of the last look; the others give nothing up
	}{
		{name: "its node is dead", looks: []look{{time.Minute, host.Progress{}, 100, false}, {time.Minute, host.Progress{}, 200, false}}, want: "did not answer for 2m0s"},
		{name: "it refuses everything", looks: []look{{time.Minute, at(0), 100, false}, {time.Minute, at(0), 200, false}}, want: "no progress for 2m0s"},
		{name: "not yet", looks: []look{{time.Minute, at(0), 100, false}, {59 * time.Second, at(0), 200, false}}},
		{name: "it waits for its turn, or is caught up", looks: []look{{time.Hour, at(0), 100, true}, {time.Hour, at(0), 100, true}}},
		{name: "a copy that goes on", looks: repeat(60, func(i int) look { return look{time.Minute, copied(int64(i + 1)), 100, false} })},
		{name: "a copy that is made durable", looks: []look{{time.Minute, copied(1000), 100, false}, {9 * time.Minute, copied(1000), 100, false}}},
		{name: "a copy that stands still", looks: []look{{time.Minute, copied(1000), 100, false}, {10 * time.Minute, copied(1000), 100, false}}, want: "no progress for 10m0s"},
		{name: "copies that do not suffice", looks: repeat(2*mostCopies, func(i int) look { return look{time.Second, copied(int64(1000 - 999*(i%2))), 100, false} }),
			want: "5 copies did not suffice"},
		{name: "it follows too slowly", looks: repeat(11, func(i int) look {
			return look{time.Minute, at(keyspace.Index(i + 1)), keyspace.Index(1000 + 10*i), false}
		}), want: "no nearer than 999 entries for 10m0s"},
		{name: "it comes nearer", looks: repeat(60, func(i int) look {
			return look{time.Minute, at(keyspace.Index(i + 1)), 1000, false}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Duration(0)
			w := newLearnerWatch(4, now)
			for i, l := range c.looks {
				now += l.after
				want := ""
				if i == len(c.looks)-1 {
					want = c.want
				}
				if got := w.look(l.p, l.commit, now, l.excused); (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Fatalf("look %d: %q, want %q", i, got, want)
				}
			}
		})
	}
}

// gaveUpOn is a map in which group g was not copied to a node.
func gaveUpOn(m *router.Map, id keyspace.NodeID, groups ...keyspace.GroupID) *router.Map {
	m.GivenUp = map[keyspace.GroupID][]router.GivenUp{}
	for _, g := range groups {
		m.GivenUp[g] = []router.GivenUp{{Node: id, Reason: "no progress", Until: 1 << 62}}
	}
	return m
}

// The leader of a group takes such a learner out and begins no other there.
func TestDecideLeavesAGivenUpNodeAlone(t *testing.T) {
	m := gaveUpOn(topology(nil, "a", "b", "c", "d"), "d", 1)
	m.Targets = map[keyspace.GroupID]router.Target{1: {Nodes: []keyspace.NodeID{"a", "b", "d"}}}
	learner := format.Member{Replica: 9, Node: "d", Learner: true}
	g := &host.GroupStatus{Group: 1, Replica: 1, Members: append(voters("a", "b", "c"), learner), Commit: 1000,
		Progress: allActive(9, host.Progress{})}
	if step, ok := Decide(g, m); !ok || step.Change != (host.MemberChange{Remove: 9}) {
		t.Fatalf("decided %+v, %v", step, ok)
	}
	g.Members = voters("a", "b", "c")
	if step, ok := Decide(g, m); ok {
		t.Fatalf("decided %+v", step)
	}
}

// The placement sends a group elsewhere, or leaves it where it is, and stays
// with that in every later round.
func TestGivenUpCopiesAreTurned(t *testing.T) {
	for _, c := range []struct {
		name   string
		more   []router.Node
		silent keyspace.NodeID
		change func(m *router.Map)
		want   []string
	}{
		{name: "to another node", more: []router.Node{{ID: "e"}}, want: []string{"target/2 [c a e] copy was given up at version 0"}},
		{name: "not to one that is silent", more: []router.Node{{ID: "e"}}, silent: "e", want: []string{"target/2 [c a b] copy was given up at version 0"}},
		{name: "back where it was", want: []string{"target/2 [c a b] copy was given up at version 0"}},
		{name: "back, though that node is drained", change: func(m *router.Map) { m.Nodes["b"] = router.Node{ID: "b", Draining: true} },
			want: []string{"target/2 [c a b] copy was given up at version 0"}},
		{name: "held groups are left alone", change: func(m *router.Map) { m.Targets[2] = router.Target{Nodes: m.Targets[2].Nodes, Held: true} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := gaveUpOn(threeGroups(), "d", 2)
			m.Balance.MaxMoves = 1 // a turned group takes no room
			move(m, "balance", map[keyspace.GroupID][]keyspace.NodeID{2: {"c", "a", "d"}})
			for _, n := range c.more {
				m.Nodes[n.ID] = n
			}
			if c.change != nil {
				c.change(m)
			}
			b, store := newPlacer(t, m, Options{Silent: func(id keyspace.NodeID) time.Duration {
				if id == c.silent {
					return time.Second
				}
				return 0
			}})
			b.place(t.Context(), m)
			if got := ofGroup(store.written(t), 2); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Fatalf("written %q, want %q", got, c.want)
			}
			carryOutTargets(t, store, m)
			for range 3 {
				b.place(t.Context(), m)
				if got := ofGroup(store.written(t), 2); len(got) > 0 {
					t.Fatalf("later written %q", got)
				}
				carryOutTargets(t, store, m)
			}
		})
	}
}

func ofGroup(written []string, g keyspace.GroupID) (out []string) {
	for _, line := range written {
		if strings.HasPrefix(line, fmt.Sprint("target/", g, " ")) {
			out = append(out, line)
		}
	}
	return out
}

// carryOutTargets keeps the targets that were written; no replica moves.
func carryOutTargets(t *testing.T, store *records, m *router.Map) {
	t.Helper()
	for _, q := range store.puts {
		g, rec := targetOf(t, q)
		m.Targets[g] = router.Target{Nodes: rec.Nodes, Held: rec.Held, Reason: rec.Reason}
	}
	store.puts = nil
}

// deafLearner is a group whose learner never hears anything.
type deafLearner struct {
	mu      sync.Mutex
	m       *router.Map
	members []format.Member
	notes   []string // of the records, when they changed
	start   time.Time
}

func (c *deafLearner) FoundGroup(context.Context, host.GroupSeed) error { return nil }

func (c *deafLearner) BatchPut(context.Context, *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	return nil, fault.New(fault.Unavailable, "no group is founded here")
}

func (c *deafLearner) Groups() []host.GroupStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return []host.GroupStatus{{Group: 1, Replica: 1, Role: "leader", Serving: true, Term: 2, Commit: 50,
		Members: append([]format.Member(nil), c.members...), Progress: allActive(9, host.Progress{})}}
}

func (c *deafLearner) Guide(keyspace.GroupID, []keyspace.NodeID) {}

func (c *deafLearner) Map() *router.Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m
}

func (c *deafLearner) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{}, nil
}

func (c *deafLearner) ChangeMembers(_ context.Context, _ keyspace.GroupID, change host.MemberChange) (keyspace.ReplicaID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := keyspace.ReplicaID(9)
	c.members = perform(c.members, change, &next)
	c.notes = append(c.notes, fmt.Sprint(time.Since(c.start).Round(time.Minute), " ", nodesOf(c.members)))
	return 9, nil
}

func (c *deafLearner) Put(_ context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	r, err := format.DecodeSystem[format.GroupRecord](q.Key, q.Value)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.m
	next.GivenUp = map[keyspace.GroupID][]router.GivenUp{}
	for _, u := range r.GivenUp {
		next.GivenUp[1] = append(next.GivenUp[1], router.GivenUp(u))
	}
	if len(next.GivenUp[1]) != len(c.m.GivenUp[1]) {
		c.notes = append(c.notes, fmt.Sprint(time.Since(c.start).Round(time.Minute), " given up: ", len(next.GivenUp[1])))
	}
	c.m = &next
	return &api.PutResponse{}, nil
}

type bubbleClock struct{ start time.Time }

func (c bubbleClock) Wall() int64         { return time.Now().UnixMilli() }
func (c bubbleClock) Mono() time.Duration { return time.Since(c.start) }

// A learner that hears nothing frees its place, the reason is recorded, and it
// is tried again: after a while, or when its node is heard from.
func TestADeafLearnerFreesItsPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent bool
		want   []string
	}{
		{name: "its node is alive", want: []string{"0s [a b c d?]", "2m0s given up: 1", "2m0s [a b c]", "12m0s given up: 0", "12m0s [a b c d?]"}},
		{name: "its node is silent until minute 5", silent: true, want: []string{"0s [a b c d?]", "2m0s given up: 1", "2m0s [a b c]", "5m0s given up: 0", "5m0s [a b c d?]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := &deafLearner{m: topology(nil, "a", "b", "c", "d"), members: voters("a", "b", "c"), start: time.Now()}
				cl.m.Targets = map[keyspace.GroupID]router.Target{1: {Nodes: []keyspace.NodeID{"a", "b", "d"}}}
				b, err := New(Options{Host: cl, Store: cl, Directory: cl, Rand: noRand{}, Clock: bubbleClock{time.Now()},
					Silent: func(keyspace.NodeID) time.Duration {
						if since := time.Since(cl.start); c.silent && since < 5*time.Minute {
							return since
						}
						return 0
					}})
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-time.After(13 * time.Minute)
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if got := cl.notes[:min(len(cl.notes), len(c.want))]; strings.Join(got, ", ") != strings.Join(c.want, ", ") {
					t.Fatalf("happened %q\nwant %q", cl.notes, c.want)
				}
			})
		})
	}
}
