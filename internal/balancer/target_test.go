package balancer

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// towards runs Decide against one group whose changes take effect at once,
// until nothing is left to do, and describes the steps. The leader is the
// preferred node's voter as soon as there is one.
func towards(t *testing.T, m *router.Map, members []format.Member, silent ...keyspace.NodeID) (steps []string, end []format.Member) {
	t.Helper()
	next := keyspace.ReplicaID(len(members) + 1)
	for range 30 {
		g := &host.GroupStatus{Group: 1, Members: members, Commit: 10, Progress: map[keyspace.ReplicaID]host.Progress{}}
		g.Replica = leaderOf(members, m.Targets[1].Nodes, silent)
		voters, active := 0, 0
		for _, member := range members {
			up := !slices.Contains(silent, member.Node)
			g.Progress[member.Replica] = host.Progress{Match: 10, Active: up}
			if !member.Learner {
				voters++
				if up {
					active++
				}
			}
		}
		if active <= voters/2 {
			t.Fatalf("after %v no quorum of %v answers", steps, members)
		}
		step, ok := Decide(g, m)
		if !ok {
			return steps, members
		}
		if step.Change.Remove == g.Replica || step.Change.Replace == g.Replica {
			t.Fatalf("after %v the leader takes itself out: %+v", steps, step)
		}
		members = perform(members, step.Change, &next)
		steps = append(steps, fmt.Sprint(nodesOf(members)))
	}
	t.Fatalf("no end after %v", steps)
	return nil, nil
}

func leaderOf(members []format.Member, prefer, silent []keyspace.NodeID) keyspace.ReplicaID {
	leader := keyspace.ReplicaID(0)
	for _, member := range members {
		if member.Learner || member.Witness() || slices.Contains(silent, member.Node) {
			continue
		}
		if leader == 0 || len(prefer) > 0 && member.Node == prefer[0] {
			leader = member.Replica
		}
	}
	return leader
}

func perform(members []format.Member, c host.MemberChange, next *keyspace.ReplicaID) []format.Member {
	var out []format.Member
	for _, m := range members {
		if m.Replica == c.Remove || m.Replica == c.Replace {
			continue
		}
		m.Learner = m.Learner && m.Replica != c.Promote
		out = append(out, m)
	}
	if c.AddLearner != "" {
		id := *next
		if c.Witness {
			id = id.AsWitness()
		}
		out = append(out, format.Member{Replica: id, Node: c.AddLearner, Learner: true})
		*next++
	}
	return out
}

// nodesOf names voters, and learners with a question mark.
func nodesOf(members []format.Member) (names []string) {
	for _, m := range members {
		name := string(m.Node)
		if m.Learner {
			name += "?"
		}
		names = append(names, name)
	}
	return names
}

func TestGroupsGoToTheirTargetInSafeSteps(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   []format.Member
		target []keyspace.NodeID
		silent []keyspace.NodeID
		gone   []keyspace.NodeID
		want   string
	}{
		{name: "at rest", from: voters("a", "b", "c"), target: []keyspace.NodeID{"b", "a", "c"}, want: "[]"},
		{name: "one moves", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "d"},
			want: "[[a b c d?] [a b d]]"},
		{name: "the leader's replica moves", from: voters("a", "b", "c"), target: []keyspace.NodeID{"d", "b", "c"},
			want: "[[a b c d?] [a b c d] [b c d]]"},
		{name: "from one to another", from: voters("a"), target: []keyspace.NodeID{"b"}, want: "[[a b?] [a b] [b]]"},
		{name: "from one to three elsewhere keeps the old until all are there", from: voters("a"), target: []keyspace.NodeID{"b", "c", "d"},
			want: "[[a b?] [a b] [a b c?] [a b c] [a b c d?] [b c d]]"},
		{name: "grows to five", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "c", "d", "e"},
			want: "[[a b c d?] [a b c d] [a b c d e?] [a b c d e]]"},
		{name: "shrinks to one", from: voters("a", "b", "c"), target: []keyspace.NodeID{"b"}, want: "[[b c] [b]]"},
		{name: "a silent one is replaced", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "d"}, silent: []keyspace.NodeID{"c"},
			want: "[[a b c d?] [a b d]]"},
		{name: "the silent one goes before the one that answers", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "d", "e"},
			silent: []keyspace.NodeID{"c"}, want: "[[a b c d?] [a b d] [a b d e?] [a d e]]"},
		{name: "all three move", from: voters("a", "b", "c"), target: []keyspace.NodeID{"d", "e", "f"},
			want: "[[a b c d?] [a c d] [a c d e?] [c d e] [c d e f?] [d e f]]"},
		{name: "a removed node is not wanted", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "c"}, gone: []keyspace.NodeID{"c"},
			want: "[[a b]]"},
		{name: "a silent target is waited for", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "d"}, silent: []keyspace.NodeID{"d"},
			want: "[[a b c d?]]"},
		{name: "one, two and a witness", from: voters("a"), target: []keyspace.NodeID{"a", "b", "w"},
			want: "[[a b?] [a b] [a b w?] [a b w]]"},
		{name: "three data nodes release the witness in one change", from: voters("a", "b", "w"), target: []keyspace.NodeID{"a", "b", "c"},
			want: "[[a b w c?] [a b c]]"},
		{name: "a witness takes the third one's place", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "w"},
			want: "[[a b c w?] [a b w]]"},
		{name: "not while that would leave one copy", from: voters("a", "b", "c"), target: []keyspace.NodeID{"a", "b", "w"}, silent: []keyspace.NodeID{"b"},
			want: "[[a b c w?]]"},
		{name: "a witness moves", from: voters("a", "b", "w"), target: []keyspace.NodeID{"a", "b", "x"}, want: "[[a b w x?] [a b x]]"},
		{name: "back to one: the witness goes first", from: voters("a", "b", "w"), target: []keyspace.NodeID{"a"}, want: "[[a b] [a]]"},
		{name: "back to one while the other is silent", from: voters("a", "b", "w"), target: []keyspace.NodeID{"a"}, silent: []keyspace.NodeID{"b"},
			want: "[[a w] [a]]"},
		{name: "a silent copy is replaced, the witness votes", from: voters("a", "b", "w"), target: []keyspace.NodeID{"a", "c", "w"}, silent: []keyspace.NodeID{"b"},
			want: "[[a b w c?] [a w c]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := topology(nil, "a", "b", "c", "d", "e", "f", "w", "x")
			for _, id := range []keyspace.NodeID{"w", "x"} {
				m.Nodes[id] = router.Node{ID: id, Witness: true}
			}
			m.Removed = map[keyspace.NodeID]bool{}
			for _, id := range c.gone {
				delete(m.Nodes, id)
				m.Removed[id] = true
			}
			m.Targets = map[keyspace.GroupID]router.Target{1: {Nodes: c.target}}
			steps, _ := towards(t, m, c.from, c.silent...)
			if got := fmt.Sprint(steps); got != c.want {
				t.Fatalf("steps %s\nwant %s", got, c.want)
			}
		})
	}
}

// records is a Store that keeps targets.
type records struct {
	puts    []*api.PutRequest
	deleted []string
	fail    error
}

func (r *records) Put(ctx context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	if router.Identity(ctx) != router.SystemIdentity {
		return nil, fault.New(fault.PermissionDenied, "reserved")
	}
	if r.fail != nil {
		return nil, r.fail
	}
	r.puts = append(r.puts, q)
	return &api.PutResponse{}, nil
}

func (r *records) Delete(_ context.Context, q *api.DeleteRequest) (*api.DeleteResponse, error) {
	r.deleted = append(r.deleted, q.Key)
	return &api.DeleteResponse{}, nil
}

func (r *records) BatchPut(context.Context, *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	return &api.BatchPutResponse{}, r.fail
}

func (r *records) written(t *testing.T) (out []string) {
	t.Helper()
	for _, q := range r.puts {
		rec, err := format.DecodeSystem[format.TargetRecord](q.Key, q.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(q.Key, " ", rec.Nodes, " ", rec.Reason, " at version ", *q.Condition.VersionMatch))
	}
	return out
}

// threeGroups is a cluster of four nodes whose groups 0 to 3 are on a, b, c.
func threeGroups() *router.Map {
	m := topology(nil, "a", "b", "c", "d")
	m.Groups = 3
	m.Balance = router.Balance{MaxMoves: 2, CopyRate: 1 << 20, SplitOff: true}
	for g, order := range [][]keyspace.NodeID{{"a", "b", "c"}, {"b", "a", "c"}, {"c", "a", "b"}, {"a", "b", "c"}} {
		for _, member := range voters(order...) {
			m.Members[keyspace.GroupID(g)] = append(m.Members[keyspace.GroupID(g)], router.Member(member))
		}
	}
	return m
}

func newPlacer(t *testing.T, m *router.Map, o Options) (*Balancer, *records) {
	t.Helper()
	store := &records{}
	o.Host, o.Store, o.Directory, o.Rand, o.Clock = &fakeCluster{m: m}, store, &fakeCluster{m: m}, noRand{}, noClock{}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b, store
}

// A new node gets its share, no more groups at a time than are allowed.
func TestPlaceMovesAFewGroupsAtATime(t *testing.T) {
	m := threeGroups()
	b, store := newPlacer(t, m, Options{})
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 2 {
		t.Fatalf("%d groups move at once: %q", moves, store.written(t))
	}
	store.puts = nil
	m.Targets = map[keyspace.GroupID]router.Target{2: {Nodes: []keyspace.NodeID{"c", "a", "d"}}, 3: {Nodes: []keyspace.NodeID{"a", "b", "d"}}}
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 0 {
		t.Fatalf("more groups move while two do: %q", store.written(t))
	}
	m.Balance.Paused, store.puts = true, nil
	m.Targets = nil
	b.place(t.Context(), m)
	if len(store.puts) > 0 {
		t.Fatalf("written while paused: %q", store.written(t))
	}
}

func targetOf(t *testing.T, q *api.PutRequest) (keyspace.GroupID, format.TargetRecord) {
	t.Helper()
	g, ok := format.SystemTargetOf(q.Key)
	rec, err := format.DecodeSystem[format.TargetRecord](q.Key, q.Value)
	if !ok || err != nil {
		t.Fatalf("%s: %v", q.Key, err)
	}
	return g, rec
}

// movesOf counts the targets written that name other nodes than before.
func movesOf(t *testing.T, store *records, m *router.Map) (moves int) {
	t.Helper()
	for _, q := range store.puts {
		g, rec := targetOf(t, q)
		for _, id := range rec.Nodes {
			if !slices.Contains(m.Wanted(g), id) {
				moves++
				break
			}
		}
	}
	return moves
}

// A node is dead once it was silent for long, which is recorded; nothing is
// placed on one that is silent, by whoever leads; it is back when it was heard
// from for a while.
func TestDeathIsRecordedAndSlow(t *testing.T) {
	m := threeGroups()
	silent := map[keyspace.NodeID]time.Duration{"d": time.Second}
	clock := &movingClock{}
	b, store := newPlacer(t, m, Options{ReplaceAfter: time.Minute, Silent: func(id keyspace.NodeID) time.Duration { return silent[id] }})
	b.o.Clock = clock
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 0 {
		t.Fatalf("groups move to a node that is silent: %q", store.written(t))
	}
	silent["c"], store.puts = 2*time.Minute, nil
	b.place(t.Context(), m)
	if len(store.puts) == 0 || store.puts[0].Key != "dead/c" {
		t.Fatalf("written: %v", store.puts)
	}
	m.Dead = map[keyspace.NodeID]bool{"c": true}
	silent, store.puts = map[keyspace.NodeID]time.Duration{"c": 3 * time.Minute}, nil
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 2 {
		t.Fatalf("%d groups leave the dead node: %q", moves, store.written(t))
	}
	silent = nil
	for _, pass := range []time.Duration{0, aliveAfter / 2} {
		clock.mono += pass
		if b.place(t.Context(), m); len(store.deleted) > 0 {
			t.Fatal("a node that was just heard from counts as alive")
		}
	}
	clock.mono += aliveAfter
	if b.place(t.Context(), m); len(store.deleted) != 1 || store.deleted[0] != "dead/c" {
		t.Fatalf("deleted: %v", store.deleted)
	}
}

type movingClock struct {
	noClock
	mono time.Duration
}

func (c *movingClock) Mono() time.Duration { return c.mono }
