package host

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// hang lets syncs on the node's disk wait until release.
func (n *node) hang() (release func()) {
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	n.disk.Before(func(op simfs.Op) error {
		if op.Kind == simfs.OpSync {
			<-gate
		}
		return nil
	})
	n.c.t.Cleanup(release)
	return release
}

func (n *node) leads() bool {
	g := n.group()
	_, leading := g.core.Leading()
	return leading
}

// raftType is the type of the raft message in m, if there is one.
func raftType(t *testing.T, m *api.GroupMessage) raftpb.MessageType {
	if m.GetRaft() == nil {
		return raftpb.MsgHup
	}
	r := &raftpb.Message{}
	if err := proto.Unmarshal(m.GetRaft(), r); err != nil {
		t.Fatal(err)
	}
	return r.GetType()
}

// inTime is within what a leader has to give up leadership (G4).
const inTime = 2 * time.Second

// A leader whose disk hangs hands over in time; the others go on without it, it
// refuses what it cannot serve, and with its disk it leads again (G4).
func TestHungDiskGivesUpLeadership(t *testing.T) {
	planned, stalls := 0, 0
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) {
			o.Hooks.Stall = func() { stalls++ }
			o.Hooks.Election = func(_ keyspace.GroupID, byTransfer bool) {
				if byTransfer {
					planned++
				}
			}
		}
	})
	c.write(testOp("k", "before"))
	old := c.nodes[0]
	release := old.hang()
	began := c.Mono()
	pending, answers := old.submit(testOp("k", "meanwhile"))
	c.pump("another leader serves", func() bool { n := c.serving(); return n != nil && n != old && !old.leads() })
	if took := c.Mono() - began; took > inTime || took < time.Second {
		t.Errorf("leadership moved after %v", took)
	}
	if planned != 1 || stalls != 1 {
		t.Errorf("%d planned elections, %d stalls", planned, stalls)
	}
	c.pump("the write is answered", func() bool { return answers.Load() > 0 })
	mustBe(t, pending.Err, fault.UnknownOutcome)

	c.write(testOp("k", "after"))
	c.mustGet(c.nodes[1], "k", "after")
	c.mustGet(c.nodes[2], "k", "after")
	var err error
	c.call("a read there", func() { _, err = old.host.ReadIndexWait(context.Background(), testGroup, 0) })
	mustBe(t, err, fault.Unavailable)

	term := c.serving().group().term
	c.pass(10 * time.Second)
	if lead := c.serving(); lead == nil || lead.group().term != term {
		t.Error("the hanging node kept the group from its leader")
	}
	release()
	c.pump("it leads again", func() bool { return c.serving() == old })
	c.mustGet(old, "k", "after")
	c.mustAgree()
	if stalls != 1 || old.host.SyncRunning() > time.Second {
		t.Errorf("%d stalls, a sync runs for %v", stalls, old.host.SyncRunning())
	}
}

// Where the hand-over does not work, the leader steps down in time.
func TestHungDiskStepsDown(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.drop = func(_, _ *node, m *api.GroupMessage) bool { return raftType(t, m) == raftpb.MsgTimeoutNow }
	old := c.nodes[0]
	old.hang()
	began := c.Mono()
	old.submit(testOp("k", "v"))
	c.pump("it leads no more", func() bool { return !old.leads() })
	if took := c.Mono() - began; took > inTime {
		t.Errorf("it stepped down after %v", took)
	}
	c.pump("another leader serves", func() bool { n := c.serving(); return n != nil && n != old })
	c.write(testOp("k", "w"))
}

// A leader that is part of every quorum keeps what it has begun for when the
// disk is back.
func TestHungDiskWithoutAnHeir(t *testing.T) {
	for _, voters := range []int{1, 2, 3} {
		c := newCluster(t, voters, voters)
		if voters == 3 {
			c.nodes[2].stop()
			c.pass(2 * time.Second)
		}
		lead := c.nodes[0]
		release := lead.hang()
		r, answers := lead.submit(testOp("k", "v"))
		c.pass(5 * time.Second)
		if !lead.leads() || !lead.host.hanging.Load() || answers.Load() > 0 {
			t.Fatalf("%d voters: leading %v, hanging %v, %d answers", voters, lead.leads(), lead.host.hanging.Load(), answers.Load())
		}
		release()
		c.pump("the write is answered", func() bool { return answers.Load() > 0 })
		if r.Err != nil {
			t.Fatalf("%d voters: %v", voters, r.Err)
		}
		c.mustGet(lead, "k", "v")
	}
}

// While its disk hangs, a node that hears of no leader asks for no votes.
func TestHungDiskDoesNotCampaign(t *testing.T) {
	c := newCluster(t, 3, 3)
	n, asked := c.nodes[2], false
	c.drop = func(from, to *node, m *api.GroupMessage) bool {
		asked = asked || from == n && raftType(t, m) == raftpb.MsgPreVote
		return to == n && n.host.hanging.Load()
	}
	release := n.hang()
	c.write(testOp("k", "v"))
	c.pass(10 * time.Second)
	if asked {
		t.Error("it asked for votes")
	}
	release()
	c.pump("it asks again", func() bool { return asked || !n.host.hanging.Load() })
	c.mustAgree()
}

// The preferred leader is not given leadership while it acknowledges nothing.
func TestHungDiskIsNoHeir(t *testing.T) {
	c := newCluster(t, 3, 3)
	first := c.nodes[0]
	c.pump("a transfer begins", func() bool { return first.host.beginTransfer(first.group(), 2, c.Mono()) })
	c.pump("the second leads", func() bool { return c.serving() == c.nodes[1] })
	first.hang()
	c.write(testOp("k", "v"))
	term := c.serving().group().term
	for end := c.Mono() + 10*time.Second; c.Mono() < end; {
		c.write(testOp("k", "v"))
		if g := c.nodes[1].group(); g.transferring || g.term != term {
			t.Fatal("a transfer to a node whose disk hangs")
		}
		c.pass(100 * time.Millisecond)
	}
}

// A node whose disk is full hands over what it leads and is given nothing back
// until there is room; what it refused is written by another (DESIGN 4).
func TestFullDiskGivesUpLeadership(t *testing.T) {
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.store.SealBytes, c.store.MaxSealed = 2000, 2
		c.opt = func(o *Options) { o.MaxEntryBytes = 10_000 }
	})
	c.write(testOp("k", "v"))
	old := c.nodes[0]
	free := old.fill()
	for n := 0; c.serving() == old && n < 1000; n++ {
		_, answers := old.submit(testOp("k", string(make([]byte, 500))))
		c.pump("the write is answered", func() bool { return answers.Load() > 0 })
	}
	c.pump("another leader serves", func() bool { n := c.serving(); return n != nil && n != old && !old.leads() })
	term := c.serving().group().term
	for end := c.Mono() + 10*time.Second; c.Mono() < end; {
		c.write(testOp("k", "w"))
		if g := c.serving().group(); g.transferring || g.term != term {
			t.Fatal("a transfer to a node whose disk is full")
		}
		c.pass(100 * time.Millisecond)
	}
	free()
	c.pump("it leads again", func() bool { return c.serving() == old })
	c.mustGet(old, "k", "w")
	c.mustAgree()
}
