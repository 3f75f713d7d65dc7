package meta

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// shaped is a cluster of nodes a to d whose groups 0 to 4 are on a, b, c.
type shaped struct {
	*fixture
	t      *testing.T
	silent map[string]bool // by name
	alive  map[string]bool
}

func shape(t *testing.T) *shaped {
	t.Helper()
	s := &shaped{t: t, silent: map[string]bool{}, alive: map[string]bool{}}
	s.fixture = newFixture(t, newStore(), func(o *Options) {
		o.Silent = func(id keyspace.NodeID) time.Duration {
			if s.silent[strings.TrimPrefix(string(id), "id-")] {
				return time.Hour
			}
			return 0
		}
		o.Alive = func(_ context.Context, n format.NodeRecord) bool { return s.alive[n.Name] }
	})
	synctest.Wait()
	for _, name := range []string{"b", "c", "d"} {
		s.write(format.SystemNodeKey(record(name).ID), record(name))
	}
	for g := range keyspace.GroupID(5) {
		s.members(g, "a", "b", "c")
	}
	return s
}

func (s *shaped) write(key string, v any) {
	s.t.Helper()
	wantCode(s.t, s.put(s.t.Context(), key, v, nil), "")
	wantCode(s.t, s.dir.Refresh(s.t.Context()), "")
}

// members records who a group's replicas are on; a name with a question mark is
// a learner.
func (s *shaped) members(g keyspace.GroupID, names ...string) {
	s.t.Helper()
	r := format.GroupRecord{}
	for i, name := range names {
		bare := strings.TrimSuffix(name, "?")
		r.Members = append(r.Members, format.MemberRecord{Replica: keyspace.ReplicaID(i + 1), Node: record(bare).ID, Learner: bare != name})
	}
	s.write(format.SystemGroupKey(g), r)
}

// target is what a group's record says, by names.
func (s *shaped) target(g keyspace.GroupID) string {
	s.t.Helper()
	r, _, err := get[format.TargetRecord](s.t.Context(), s.Service, format.SystemTargetKey(g))
	wantCode(s.t, err, "")
	var names []string
	for _, id := range r.record.Nodes {
		names = append(names, strings.TrimPrefix(string(id), "id-"))
	}
	return strings.TrimSpace(fmt.Sprint(strings.Join(names, " "), " ", r.record.Reason, map[bool]string{true: " (held)"}[r.record.Held]))
}

func (s *shaped) state(m *api.MembersResponse, name string) string {
	s.t.Helper()
	for _, n := range m.GetNodes() {
		if n.GetInfo().GetName() == name {
			return n.GetState()
		}
	}
	return "no member"
}

func TestExpectNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		ctx := t.Context()
		m, err := s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "e", Address: "e:1"})
		wantCode(t, err, "")
		if p := m.GetPending(); len(p) != 1 || p[0].GetOperation() != "add_node" || p[0].GetNodeId() != "e" || p[0].GetAddress() != "e:1" {
			t.Fatalf("pending %v", p)
		}
		m, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "e", Address: "e:2"}) // again, with another address
		wantCode(t, err, "")
		if p := m.GetPending(); len(p) != 1 || p[0].GetAddress() != "e:2" {
			t.Fatalf("pending %v", p)
		}
		for _, name := range []string{"", "a b", "a/b", strings.Repeat("x", 64)} {
			_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: name})
			wantCode(t, err, fault.InvalidArgument)
		}
		_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "b"})
		wantCode(t, err, fault.FailedPrecondition)
		_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "f", Cancel: true})
		wantCode(t, err, fault.NotFound)
		_, err = join(s.fixture, record("e"))
		wantCode(t, err, "")
		m, err = s.Members(ctx, nil)
		wantCode(t, err, "")
		if len(m.GetPending()) != 0 || s.state(m, "e") != "active" {
			t.Fatalf("after the join: %v, %s", m.GetPending(), s.state(m, "e"))
		}
		for i := range maxPending {
			_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: fmt.Sprint("n", i)})
			wantCode(t, err, "")
		}
		_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "one-more"})
		wantCode(t, err, fault.FailedPrecondition)
		_, err = s.ExpectNode(ctx, &api.ExpectNodeRequest{Name: "n7", Cancel: true})
		wantCode(t, err, "")
	})
}

func TestDrainNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		ctx := t.Context()
		_, err := s.DrainNode(ctx, &api.DrainNodeRequest{Node: "nobody"})
		wantCode(t, err, fault.NotFound)
		for _, node := range []string{"b", "id-c", "d"} { // by name or id
			m, err := s.DrainNode(ctx, &api.DrainNodeRequest{Node: node})
			wantCode(t, err, "")
			if got := s.state(m, strings.TrimPrefix(node, "id-")); got != format.NodeDraining {
				t.Fatalf("%s is %s", node, got)
			}
		}
		_, err = s.DrainNode(ctx, &api.DrainNodeRequest{Node: "a"}) // nobody is left to take it
		wantCode(t, err, fault.FailedPrecondition)
		m, err := s.DrainNode(ctx, &api.DrainNodeRequest{Node: "d", Undo: true})
		wantCode(t, err, "")
		if s.state(m, "d") != "active" || len(m.GetPending()) != 2 {
			t.Fatalf("d is %s, pending %v", s.state(m, "d"), m.GetPending())
		}
		// The node's own record, written again at a restart, keeps the order.
		moved := record("b")
		moved.Peer = "elsewhere:1"
		_, err = join(s.fixture, moved)
		wantCode(t, err, "")
		m, err = s.Members(ctx, nil)
		wantCode(t, err, "")
		if s.state(m, "b") != format.NodeDraining {
			t.Fatalf("b is %s after it moved", s.state(m, "b"))
		}
	})
}

// An operator's order is for the name: a drained node that comes back with an
// empty directory is still drained, and to the same node. One that was removed
// gave the name up; who takes it is a new node.
func TestAWipedNodeIsStillDrained(t *testing.T) {
	for _, c := range []struct {
		remove   bool
		want, to string
	}{{false, format.NodeDraining, "d"}, {true, "active", ""}} {
		synctest.Test(t, func(t *testing.T) {
			s := shape(t)
			_, err := s.ReplaceNode(t.Context(), &api.ReplaceNodeRequest{Node: "c", With: "d"})
			wantCode(t, err, "")
			if c.remove {
				_, err := s.RemoveNode(t.Context(), &api.RemoveNodeRequest{Node: "c", Force: true})
				wantCode(t, err, "")
			}
			fresh := record("c")
			fresh.ID = "id-c2"
			_, err = join(s.fixture, fresh)
			wantCode(t, err, "")
			m, err := s.Members(t.Context(), nil)
			wantCode(t, err, "")
			if got, to := s.state(m, "c"), drainTo(m, "c"); got != c.want || to != c.to {
				t.Errorf("removed %v: c is %s to %q, want %s to %q", c.remove, got, to, c.want, c.to)
			}
		})
	}
}

func TestRemoveNode(t *testing.T) {
	remove := func(s *shaped, node string, force bool) error {
		_, err := s.RemoveNode(s.t.Context(), &api.RemoveNodeRequest{Node: node, Force: force})
		return err
	}
	for _, c := range []struct {
		name    string
		prepare func(s *shaped)
		node    string
		force   bool
		want    fault.Code
	}{
		{name: "one that holds nothing", node: "d"},
		{name: "by id", node: "id-d"},
		{name: "unknown", node: "nobody", want: fault.NotFound},
		{name: "one that holds replicas", node: "c", want: fault.FailedPrecondition},
		{name: "by force, alive", node: "c", force: true, prepare: func(s *shaped) { s.alive["c"] = true }, want: fault.FailedPrecondition},
		{name: "by force, dead", node: "c", force: true},
		{name: "by force, without a quorum of others", node: "c", force: true, prepare: func(s *shaped) { s.silent["b"] = true }, want: fault.FailedPrecondition},
		{name: "by force, one that holds a learner", node: "d", force: true, prepare: func(s *shaped) { s.members(2, "a", "b", "c", "d?") }},
		{name: "a learner is a replica", node: "d", prepare: func(s *shaped) { s.members(2, "a", "b", "c", "d?") }, want: fault.FailedPrecondition},
		{name: "the last that is not drained", node: "d", prepare: func(s *shaped) {
			for _, name := range []string{"b", "c", "a"} {
				_, err := s.DrainNode(s.t.Context(), &api.DrainNodeRequest{Node: name})
				wantCode(s.t, err, "")
			}
		}, want: fault.FailedPrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shape(t)
				if c.prepare != nil {
					c.prepare(s)
				}
				wantCode(t, remove(s, c.node, c.force), c.want)
				m, err := s.Members(t.Context(), nil)
				wantCode(t, err, "")
				name := strings.TrimPrefix(c.node, "id-")
				if gone := s.state(m, name) == "no member"; gone != (c.want == "" || c.want == fault.NotFound) {
					t.Fatalf("%s is %s", name, s.state(m, name))
				}
			})
		})
	}
}

// A removed node never comes back; its name may be used again, by a node that
// takes its place where one is still missing.
func TestRemovedNodesStayAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		ctx := t.Context()
		_, err := s.RemoveNode(ctx, &api.RemoveNodeRequest{Node: "c", Force: true})
		wantCode(t, err, "")
		_, err = join(s.fixture, record("c"))
		wantCode(t, err, fault.FailedPrecondition)
		_, err = s.RemoveNode(ctx, &api.RemoveNodeRequest{Node: "c", Force: true})
		wantCode(t, err, fault.NotFound)
		if s.peers.addrs["id-c"] != "" {
			t.Fatal("the removed node is still a peer")
		}
		if got := s.peers.gone["id-c"]; !strings.HasPrefix(got, "this node was removed from the cluster on 20") || !strings.Contains(got, "(by an operator); delete its data directory") {
			t.Fatalf("the removed node is told %q", got)
		}
		m, err := s.Members(ctx, nil)
		wantCode(t, err, "")
		for _, g := range m.GetGroups() {
			if slices.Contains(g.GetTarget(), "id-c") {
				t.Fatalf("group %d still waits for the removed node: %v", g.GetGroup(), g.GetTarget())
			}
		}
		fresh := record("c")
		fresh.ID = "id-c2"
		_, err = join(s.fixture, fresh)
		wantCode(t, err, "")
		m, err = s.Members(ctx, nil)
		wantCode(t, err, "")
		if s.state(m, "c") != "active" || !slices.Contains(m.GetGroups()[2].GetTarget(), "id-c2") {
			t.Fatalf("c is %s, group 2 goes to %v", s.state(m, "c"), m.GetGroups()[2].GetTarget())
		}
	})
}

func TestReplaceNode(t *testing.T) {
	replace := func(s *shaped, node, with string) error {
		_, err := s.ReplaceNode(s.t.Context(), &api.ReplaceNodeRequest{Node: node, With: with})
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		wantCode(t, replace(s, "b", "nobody"), fault.NotFound)
		wantCode(t, replace(s, "nobody", "d"), fault.NotFound)
		wantCode(t, replace(s, "b", "id-b"), fault.InvalidArgument)
		w := record("w")
		w.Role = format.RoleWitness
		s.write(format.SystemNodeKey(w.ID), w)
		wantCode(t, replace(s, "b", "w"), fault.FailedPrecondition)
		wantCode(t, replace(s, "w", "b"), fault.FailedPrecondition)
		s.silent["d"] = true
		wantCode(t, replace(s, "b", "d"), fault.FailedPrecondition)
		s.silent["d"] = false
		wantCode(t, replace(s, "b", "d"), "")
		for g := range keyspace.GroupID(5) { // the placement's, a few at a time
			if got := s.target(g); got != "" {
				t.Errorf("group %d goes to %q at once", g, got)
			}
		}
		m, err := s.Members(t.Context(), nil)
		wantCode(t, err, "")
		if s.state(m, "b") != format.NodeDraining || s.state(m, "d") != "active" {
			t.Fatalf("b is %s, d is %s", s.state(m, "b"), s.state(m, "d"))
		}
		if to := drainTo(m, "b"); to != "d" {
			t.Fatalf("b is drained to %q", to)
		}
		wantCode(t, replace(s, "c", "b"), fault.FailedPrecondition) // b is drained itself
		// A plain drain leaves the choice, and so does taking it back.
		for _, undo := range []bool{false, true} {
			wantCode(t, replace(s, "b", "d"), "")
			m, err := s.DrainNode(t.Context(), &api.DrainNodeRequest{Node: "b", Undo: undo})
			wantCode(t, err, "")
			if to := drainTo(m, "b"); to != "" {
				t.Fatalf("undo %v: b is drained to %q", undo, to)
			}
		}
	})
}

func drainTo(m *api.MembersResponse, name string) string {
	for _, n := range m.GetNodes() {
		if n.GetInfo().GetName() == name {
			return n.GetDrainTo()
		}
	}
	return "no member"
}

func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		ctx := t.Context()
		for _, bad := range []*api.ConfigureRequest{
			{ReplicationFactor: new(uint32(0))}, {ReplicationFactor: new(uint32(2))}, {ReplicationFactor: new(uint32(7))},
			{MaxMoves: new(uint32(0))}, {MaxMoves: new(uint32(mostMoves + 1))},
			{CopyRate: new(uint64(leastRate - 1))}, {CopyRate: new(uint64(mostRate + 1))}, {CopyRate: new(uint64(1 << 63))},
		} {
			_, err := s.Configure(ctx, bad)
			wantCode(t, err, fault.InvalidArgument)
		}
		m, err := s.Configure(ctx, &api.ConfigureRequest{})
		wantCode(t, err, "")
		if b := m.GetBalance(); m.GetReplicationFactor() != 3 || b.GetPaused() || b.GetMaxMoves() != format.DefaultMaxMoves || b.GetCopyRate() != format.DefaultCopyRate {
			t.Fatalf("factor %d, %v", m.GetReplicationFactor(), b)
		}
		m, err = s.Configure(ctx, &api.ConfigureRequest{ReplicationFactor: new(uint32(5)), Paused: new(true), MaxMoves: new(uint32(7))})
		wantCode(t, err, "")
		if b := m.GetBalance(); m.GetReplicationFactor() != 5 || !b.GetPaused() || b.GetMaxMoves() != 7 {
			t.Fatalf("factor %d, %v", m.GetReplicationFactor(), b)
		}
		m, err = s.Configure(ctx, &api.ConfigureRequest{Paused: new(false)}) // the rest stays
		wantCode(t, err, "")
		if b := m.GetBalance(); m.GetReplicationFactor() != 5 || b.GetPaused() || b.GetMaxMoves() != 7 {
			t.Fatalf("factor %d, %v", m.GetReplicationFactor(), b)
		}
		before := s.store.rev
		_, err = s.Configure(ctx, &api.ConfigureRequest{Paused: new(false), MaxMoves: new(uint32(7))})
		wantCode(t, err, "")
		if s.store.rev != before {
			t.Fatal("what is so already is written again")
		}
	})
}

// What a group's leader noted of copies that it gave up is shown.
func TestGivenUpCopiesAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		s.write(format.SystemGroupKey(2), format.GroupRecord{GivenUp: []format.GivenUpRecord{{Node: "id-d", Reason: "no progress", Since: 5, Until: 7}}})
		if !s.dir.Map().GaveUpOn(2, "id-d") || s.dir.Map().GaveUpOn(1, "id-d") || s.dir.Map().GaveUpOn(2, "id-a") {
			t.Fatalf("given up: %v", s.dir.Map().GivenUp)
		}
		m, err := s.Members(t.Context(), nil)
		wantCode(t, err, "")
		if u := m.GetGroups()[2].GetGivenUp(); len(u) != 1 || u[0].GetNodeId() != "id-d" || u[0].GetReason() != "no progress" || u[0].GetSinceMs() != 5 || u[0].GetUntilMs() != 7 {
			t.Fatalf("shown: %v", u)
		}
	})
}

func TestHoldGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		hold := func(g uint32, release bool) error {
			_, err := s.HoldGroup(t.Context(), &api.HoldGroupRequest{Group: g, Release: release})
			return err
		}
		wantCode(t, hold(5, false), fault.NotFound)
		wantCode(t, hold(2, true), fault.FailedPrecondition)
		// On its way from c to d: it stays where its voters are.
		s.members(2, "b", "a", "c", "d?")
		s.write(format.SystemTargetKey(2), format.TargetRecord{Nodes: []keyspace.NodeID{"id-b", "id-a", "id-d"}, Reason: "balance"})
		wantCode(t, hold(2, false), "")
		if got := s.target(2); got != "b a c held (held)" {
			t.Fatalf("target %q", got)
		}
		m, err := s.Members(t.Context(), nil)
		wantCode(t, err, "")
		if g := m.GetGroups()[2]; !g.GetHeld() || g.GetSinceMs() == 0 {
			t.Fatalf("group 2: %v", g)
		}
		wantCode(t, hold(2, false), "") // again
		wantCode(t, hold(2, true), "")
		if got := s.target(2); got != "b a c released" {
			t.Fatalf("target %q", got)
		}
	})
}

// A move that is cancelled between its steps, with more voters than there should
// be, settles on as many as there should be: those that answer, then those that
// are not drained, then those that were there before.
func TestHeldGroupsHaveAProperSetOfVoters(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []string
		silent  string
		drained string
		want    string
	}{
		{name: "the new one goes", members: []string{"a", "b", "c", "d"}, want: "b a c held (held)"},
		{name: "a silent one goes", members: []string{"a", "b", "c", "d"}, silent: "b", want: "a c d held (held)"},
		{name: "a drained one goes", members: []string{"a", "b", "c", "d"}, drained: "c", want: "b a d held (held)"},
		{name: "the silent one before the drained one", members: []string{"a", "b", "c", "d"}, silent: "b", drained: "c", want: "a c d held (held)"},
		{name: "a silent one stays where nobody is too many", members: []string{"a", "b", "c"}, silent: "b", want: "b a c held (held)"},
		{name: "a learner is no voter", members: []string{"a", "b", "c", "d?"}, silent: "b", want: "b a c held (held)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shape(t)
				if c.drained != "" {
					_, err := s.DrainNode(t.Context(), &api.DrainNodeRequest{Node: c.drained})
					wantCode(t, err, "")
				}
				s.silent[c.silent] = true
				s.members(2, c.members...)
				s.write(format.SystemTargetKey(2), format.TargetRecord{Nodes: []keyspace.NodeID{"id-b", "id-a", "id-d"}, Reason: "balance"})
				_, err := s.HoldGroup(t.Context(), &api.HoldGroupRequest{Group: 2})
				wantCode(t, err, "")
				if got := s.target(2); got != c.want {
					t.Fatalf("target %q, want %q", got, c.want)
				}
			})
		})
	}
}

// Two operators at once: the second one's change is decided on what the first
// one wrote.
func TestOperatorsDoNotOverwriteEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		raced := false
		s.store.mu.Lock()
		s.store.before = func(key string) error {
			if !raced && strings.HasSuffix(key, format.SystemBalanceKey) {
				raced = true
				s.store.write(key, item(format.SystemBalanceKey, format.BalanceRecord{MaxMoves: 9}, nil))
			}
			return nil
		}
		s.store.mu.Unlock()
		m, err := s.Configure(t.Context(), &api.ConfigureRequest{Paused: new(true)})
		wantCode(t, err, "")
		if b := m.GetBalance(); !raced || !b.GetPaused() || b.GetMaxMoves() != 9 {
			t.Fatalf("%v", b)
		}
		// Every attempt loses: an error, not a loop.
		s.store.mu.Lock()
		s.store.before = func(key string) error {
			if strings.HasSuffix(key, format.SystemBalanceKey) {
				return fault.New(fault.ConditionFailed, "somebody was faster")
			}
			return nil
		}
		s.store.mu.Unlock()
		_, err = s.Configure(t.Context(), &api.ConfigureRequest{Paused: new(false)})
		if err == nil || fault.CodeOf(err) == fault.ConditionFailed {
			t.Fatalf("got %v", err)
		}
	})
}
