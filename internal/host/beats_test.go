package host

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// asked counts the heartbeats that ask for a confirmation, by receiver, and can
// lose those to one of them.
type asked struct {
	by   map[keyspace.NodeID]int
	lose keyspace.NodeID
}

func (a *asked) drop(_, to *node, m *api.GroupMessage) bool {
	raw := m.GetRaft()
	if raw == nil {
		return false
	}
	var beat raftpb.Message
	if proto.Unmarshal(raw, &beat) != nil || beat.GetType() != raftpb.MsgHeartbeat || len(beat.GetContext()) == 0 {
		return false
	}
	a.by[to.id]++
	return to.id == a.lose
}

// readNow reads on n without a tick and reports whether an answer came.
func readNow(t *testing.T, c *cluster, n *node) (answered func() bool) {
	t.Helper()
	done := false
	n.host.ReadIndex(t.Context(), testGroup, func(_ ReadPoint, err error) {
		if err != nil {
			t.Error(err)
		}
		done = true
	})
	return func() bool {
		if err := n.host.Step(); err != nil {
			t.Fatal(err)
		}
		for c.step() {
		}
		return done
	}
}

func TestReadsAskAQuorumOnly(t *testing.T) {
	for _, members := range []int{1, 3, 5} {
		a := &asked{by: make(map[keyspace.NodeID]int)}
		c := newCluster(t, members, members)
		c.write(testOp("k", "v"))
		c.settle()
		n := c.serving()
		c.drop = a.drop
		const reads = 10
		for i := range reads {
			if !readNow(t, c, n)() {
				t.Fatalf("read %d of %d members is not answered", i, members)
			}
			if due := n.host.beatsDue(); due != 0 {
				t.Fatalf("after read %d of %d members the loop still waits %v", i, members, due)
			}
		}
		if len(a.by) != members/2 {
			t.Fatalf("of %d members these were asked: %v", members, a.by)
		}
		for id, times := range a.by {
			if times != reads {
				t.Errorf("%s was asked %d times for %d reads", id, times, reads)
			}
		}
	}
}

// unanswered is a read whose first heartbeat was lost, as are all to that node.
func unanswered(t *testing.T) (c *cluster, n *node, answered func() bool) {
	t.Helper()
	a := &asked{by: make(map[keyspace.NodeID]int)}
	c = newCluster(t, 3, 3)
	c.write(testOp("k", "v"))
	c.settle()
	n = c.serving()
	c.drop = a.drop
	if !readNow(t, c, n)() {
		t.Fatal("not answered")
	}
	for id := range a.by {
		a.lose = id
	}
	answered = readNow(t, c, n)
	if answered() {
		t.Fatal("answered although the heartbeat was lost")
	}
	return c, n, answered
}

// Whoever is asked first and does not answer costs a read a few milliseconds,
// once.
func TestReadsAskOthersWhenAnswersAreLate(t *testing.T) {
	c, n, answered := unanswered(t)
	if due := n.host.beatsDue(); due <= 0 || due > beatPatience {
		t.Fatalf("the loop waits %v for the others to be asked", due)
	}
	c.elapsed.Add(int64(beatPatience))
	if !answered() {
		t.Fatalf("not answered after %v", beatPatience)
	}
	if due := n.host.beatsDue(); due != 0 {
		t.Fatalf("the loop still waits %v", due)
	}
	for range 10 {
		if !readNow(t, c, n)() {
			t.Fatal("the one that does not answer is asked first again")
		}
	}
}

// Nor does it cost more when other reads come all the time.
func TestReadsAskOthersWhileReadsCome(t *testing.T) {
	c, n, answered := unanswered(t)
	for range int(beatPatience / time.Millisecond) {
		c.elapsed.Add(int64(time.Millisecond))
		readNow(t, c, n)()
	}
	if !answered() {
		t.Fatalf("not answered after %v", beatPatience)
	}
}

// What counts is the oldest confirmation of this leader's, and when everybody was asked.
func TestBeatsAt(t *testing.T) {
	const ms = time.Millisecond
	one := map[keyspace.ReplicaID]*raftpb.Message{2: {}}
	for name, c := range map[string]struct {
		beats   readBeats
		batches []readBatch
		at      time.Duration
		held    bool
	}{
		"nothing held":        {batches: []readBatch{{at: 4 * ms}}},
		"nobody waits":        {beats: readBeats{held: one}},
		"a follower waits":    {beats: readBeats{held: one}, batches: []readBatch{{at: 4 * ms, remote: true}}},
		"the oldest":          {beats: readBeats{held: one}, batches: []readBatch{{at: 9 * ms}, {at: 4 * ms}, {at: 7 * ms}}, at: 4*ms + beatPatience, held: true},
		"everybody was asked": {beats: readBeats{held: one, all: 6 * ms}, batches: []readBatch{{at: 9 * ms}, {at: 4 * ms}}, at: 6*ms + beatPatience, held: true},
	} {
		g := &group{beats: c.beats}
		g.reads.batches = make(map[uint64]*readBatch)
		for i := range c.batches {
			g.reads.batches[uint64(i)] = &c.batches[i]
		}
		if at, held := g.beatsAt(); held != c.held || held && at != c.at {
			t.Errorf("%s: at %v, held %v, want %v, %v", name, at, held, c.at, c.held)
		}
	}
}

// The heartbeats of a tick go to everybody, whatever waits.
func TestTicksAskEverybody(t *testing.T) {
	_, n, answered := unanswered(t)
	n.host.Tick()
	if !answered() {
		t.Fatal("not answered after a tick")
	}
}
