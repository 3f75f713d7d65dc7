package host

import (
	"slices"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// A follower's read in a group of three takes one message to the leader and
// one back: no raft message gets through here.
func TestFollowerVouchesForTheLeader(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	c.settle() // the follower knows what is committed
	n := c.nodes[2]
	c.drop = func(_, _ *node, m *api.GroupMessage) bool {
		if r := m.GetReadIndex(); r != nil && r.GetTerm() != n.group().rn.BasicStatus().GetTerm() {
			t.Errorf("asked in term %d", r.GetTerm())
		}
		return m.GetRaft() != nil
	}
	answered := false
	n.host.ReadIndex(t.Context(), testGroup, func(_ ReadPoint, err error) { answered = err == nil })
	for range 3 {
		c.step()
	}
	if !answered {
		t.Fatal("not answered in one round trip")
	}
	c.drop = nil
	c.mustGet(n, "k", "v")
}

// Only a voter that is a quorum with the leader vouches for it, in its term and
// up to its ceiling.
func TestWhoVouches(t *testing.T) {
	for _, voters := range []int{3, 5} {
		c := newCluster(t, voters, voters)
		c.write(testOp("k", "v"))
		n := c.serving()
		g := n.group()
		term, _ := g.core.Leading()
		good := func() *api.ReadIndexRequest {
			return &api.ReadIndexRequest{FromReplica: 2, Term: uint64(term)}
		}
		for name, change := range map[string]func(*api.ReadIndexRequest){
			"":             func(*api.ReadIndexRequest) {},
			"later term":   func(r *api.ReadIndexRequest) { r.Term++ },
			"earlier term": func(r *api.ReadIndexRequest) { r.Term-- },
			"no term":      func(r *api.ReadIndexRequest) { r.Term = 0 },
			"no voter":     func(r *api.ReadIndexRequest) { r.FromReplica = 9 },
			"itself":       func(r *api.ReadIndexRequest) { r.FromReplica = uint64(g.replica) },
			"ceiling":      func(r *api.ReadIndexRequest) { r.AtLeast = uint64(g.core.ReadCeiling()) + 1 },
		} {
			r := good()
			change(r)
			if _, ok := n.host.vouched(g, r); ok != (name == "" && voters == 3) {
				t.Errorf("%d voters, %q: vouched %v", voters, name, ok)
			}
		}
		p, _ := n.host.vouched(g, good())
		if voters == 3 && (uint64(p.Index) != g.rn.BasicStatus().GetCommit() || p.Clock == 0) {
			t.Errorf("point %+v", p)
		}
	}
}

func TestMajority(t *testing.T) {
	for _, c := range []struct {
		voters, replicas []uint64
		want             bool
	}{
		{[]uint64{1}, []uint64{1, 2}, true},
		{[]uint64{1, 2}, []uint64{1, 2}, true},
		{[]uint64{1, 2}, []uint64{1, 3}, false},
		{[]uint64{1, 2, 3}, []uint64{1, 1}, false},
		{[]uint64{1, 2, 3, 4}, []uint64{1, 2}, false},
		{nil, []uint64{1, 2}, false},
	} {
		if got := majority(c.voters, c.replicas); got != c.want {
			t.Errorf("%v of %v: %v", c.replicas, c.voters, got)
		}
	}
}

// Few readers' confirmations overlap; those that come while enough are under way, or one
// for many, share the next; one that takes long does not hold them up.
func TestReadersShareConfirmations(t *testing.T) {
	var batches []int
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { o.Hooks.ReadBatch = func(n int) { batches = append(batches, n) } }
	})
	n := c.serving()
	batches = nil
	answers, asked := 0, 0
	read := func(calls int, want ...int) {
		t.Helper()
		asked++
		n.host.ReadIndexAll([]Read{{Group: testGroup, Calls: calls, Done: func(_ ReadPoint, err error) {
			if answers++; fault.CodeOf(err) != "" {
				t.Error(err)
			}
		}}})
		if err := n.host.Step(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(batches, want) {
			t.Fatalf("batches %v, want %v", batches, want)
		}
	}
	settle := func(want ...int) {
		t.Helper()
		c.pump("all are answered", func() bool { return answers == asked })
		if !slices.Equal(batches, want) {
			t.Fatalf("batches %v in the end, want %v", batches, want)
		}
		batches = nil
	}
	read(1, 1)
	read(1, 1, 1)
	read(overlapCalls-3, 1, 1, 1)
	for range 5 {
		read(1, 1, 1, 1)
	}
	if n.host.gathering != confirmRecent {
		t.Errorf("the loop looks again in %v", n.host.gathering)
	}
	c.elapsed.Add(int64(confirmRecent))
	read(1, 1, 1, 1, 6)
	read(overlapCalls-6, 1, 1, 1, 6, 1)
	read(1, 1, 1, 1, 6, 1)
	settle(1, 1, 1, 6, 1, 1)

	read(overlapCalls, 1)
	for range 3 {
		read(1, 1)
	}
	settle(1, 3)
}

// Readers that come back after many were answered together wait a moment for the
// others; a reader alone never does.
func TestReadersGather(t *testing.T) {
	var batches []int
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { o.Hooks.ReadBatch = func(n int) { batches = append(batches, n) } }
	})
	n := c.serving()
	g := n.host.groups[testGroup]
	answers, asked := 0, 0
	frames := func(many, calls int) {
		for range many {
			asked++
			n.host.ReadIndexAll([]Read{{Group: testGroup, Calls: calls, Done: func(_ ReadPoint, err error) {
				if answers++; fault.CodeOf(err) != "" {
					t.Error(err)
				}
			}}})
		}
		if err := n.host.Step(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(many int) { frames(many, 1) }
	settle := func(want ...int) {
		t.Helper()
		if !slices.Equal(batches, want) {
			t.Fatalf("batches %v, want %v", batches, want)
		}
		c.pump("all are answered", func() bool { return answers == asked })
		batches = nil
	}
	g.reads.last, batches = 1, nil
	read(1)
	settle(1)
	read(8)
	settle(8)
	read(6)
	if len(batches) != 0 || n.host.patience() != gatherFor {
		t.Fatalf("batches %v, the loop waits for %v", batches, n.host.patience())
	}
	read(0) // other mail
	if len(batches) != 0 || n.host.patience() != gatherFor {
		t.Fatalf("batches %v, the loop waits for %v after other mail", batches, n.host.patience())
	}
	read(2)
	settle(8)
	read(1)
	c.elapsed.Add(int64(gatherFor))
	read(0)
	settle(1)
	read(1)
	settle(1)
	if n.host.patience() != 0 {
		t.Errorf("an idle loop waits for %v", n.host.patience())
	}

	// Frames of several operations wait for nobody, and nobody for as many.
	read(9)
	settle(9)
	frames(1, 2)
	settle(1)
	frames(9, 2)
	settle(9)
	read(1)
	settle(1)
}
