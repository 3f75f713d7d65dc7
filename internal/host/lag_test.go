package host

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/replica"
)

// lagging submits two requests, which become one entry, on a leader whose disk others
// have needed lately.
func lagging(c *cluster, keys ...string) (lead *node, answers *atomic.Int32) {
	c.t.Helper()
	c.settle()
	lead, answers = c.serving(), new(atomic.Int32)
	c.pump("no sync runs", func() bool { return !lead.host.syncs.running })
	lead.host.syncs.lag.asked = c.Mono()
	var requests []*replica.Request
	for _, k := range keys {
		requests = append(requests, &replica.Request{Group: testGroup, Ops: []replica.Op{testOp(k, "v")},
			Done: func(r *replica.Request) {
				if r.Err != nil || r.Ops[0].Result.Err != nil {
					c.t.Errorf("%v, %v", r.Err, r.Ops[0].Result.Err)
				}
				answers.Add(1)
			}})
	}
	lead.host.SubmitAll(context.Background(), requests)
	return lead, answers
}

// still runs the loops until a condition holds, without time passing.
func (c *cluster) still(what string, until func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !until() {
		if time.Now().After(deadline) {
			c.t.Fatalf("not in time: %s", what)
		}
		if !c.step() {
			runtime.Gosched()
		}
	}
}

func (n *node) durable() bool { return n.log.Durable() == n.log.Written() }

// A leader answers what its followers have on disk before its own disk has it; a crash
// of it loses nothing.
func TestALeadersSyncMayLag(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "before"))
	lead, answers := lagging(c, "a", "b")
	last := lead.group().core.State().Index + 1 // those of both requests
	frozen := c.Mono()                          // no tick: nothing syncs the leader's log by itself
	c.still("the answers", func() bool { return answers.Load() == 2 })
	if lead.durable() || lead.group().core.State().Index != last || c.Mono() != frozen {
		t.Fatalf("durable %v, applied %v of %v", lead.durable(), lead.group().core.State().Index, last)
	}
	if lead.group().promptUntil > frozen {
		t.Fatal("a lag that was not for nothing ends the next ones")
	}
	if got := lead.host.patience(); got <= 0 || got > lead.host.opt.LagLimit {
		t.Fatalf("the loop sleeps for %v", got)
	}
	for _, n := range c.nodes {
		if n != lead && (!n.durable() || n.group().core.State().Index+1 < last) {
			t.Fatalf("%s acknowledged what is not on its disk", n.id)
		}
	}
	lead.crash()
	c.pump("another leads", func() bool { return c.serving() != nil })
	for _, n := range c.nodes {
		c.mustGet(n, "a", "v")
		c.mustGet(n, "b", "v")
	}
	c.mustAgree()
}

// With one follower left the leader's own disk is needed for a quorum: it is synced
// after LagLimit, and no answer comes before.
func TestWhatLagsIsSyncedInTime(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "before"))
	lead, answers := lagging(c, "a", "b")
	cut := c.nodes[2]
	c.drop = func(from, to *node, m *api.GroupMessage) bool { return from == cut || to == cut }
	c.still("all is quiet", func() bool {
		return lead.group().lagging > 0 && c.jobs.Load() == 0 && c.nodes[1].durable() && !lead.host.Busy() && !c.nodes[1].host.Busy()
	})
	if answers.Load() != 0 || lead.durable() {
		t.Fatalf("%d answers with one copy on disk, durable %v", answers.Load(), lead.durable())
	}
	c.elapsed.Add(int64(lead.host.opt.LagLimit))
	begun := c.Mono()
	lead.host.paced()
	c.pump("the answers", func() bool { return answers.Load() == 2 })
	if !lead.durable() {
		t.Fatal("answered by one copy on disk")
	}
	if until := lead.group().promptUntil; until < begun+lagPause {
		t.Fatalf("prompt until %v, which is %v after the sync", until, until-begun)
	}
}

// A delta goes to the disk only with what the log has on it.
func TestSealsDoNotPassTheLog(t *testing.T) {
	c := newCluster(t, 3, 3)
	lead, answers := lagging(c, "a", "b")
	c.still("the answers", func() bool { return answers.Load() == 2 })
	if lead.durable() {
		t.Fatal("nothing lags")
	}
	lead.host.seal()
	if !lead.durable() {
		t.Fatal("sealed what a crash of the log takes back")
	}
}

// Only entries of requests lag: not what changes the members, begins a term, or switches
// to a snapshot.
func TestOnlyPlainEntriesLag(t *testing.T) {
	request := &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Data: []byte("request")}
	for name, c := range map[string]struct {
		m    *raftpb.Message
		want bool
	}{
		"requests":            {&raftpb.Message{Entries: []*raftpb.Entry{request, request}}, true},
		"nothing":             {&raftpb.Message{}, false},
		"a change of members": {&raftpb.Message{Entries: []*raftpb.Entry{request, {Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte("change")}}}, false},
		"the first of a term": {&raftpb.Message{Entries: []*raftpb.Entry{{Type: raftpb.EntryNormal.Enum()}, request}}, false},
		"beside a snapshot":   {&raftpb.Message{Entries: []*raftpb.Entry{request}, Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(7))}}}, false},
	} {
		if got := plain(c.m); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What must not lag: promises, single requests, entries of those whom nobody asked for
// a sync lately, and what needs the leader's vote.
func TestWhatMustNotLag(t *testing.T) {
	for _, tc := range []struct {
		name    string
		voters  int
		witness bool
		keys    []string
		before  func(c *cluster, lead *node)
	}{
		{"one request", 3, false, []string{"a"}, nil},
		{"nobody else needs syncs", 3, false, []string{"a", "b"}, func(_ *cluster, lead *node) { lead.host.syncs.lag.asked = 0 }},
		{"long ago", 3, false, []string{"a", "b"}, func(c *cluster, lead *node) { lead.host.syncs.lag.asked = c.Mono() - 2*lead.host.opt.LagLimit }},
		{"a lag was for nothing", 3, false, []string{"a", "b"}, func(c *cluster, lead *node) { lead.group().promptUntil = c.Mono() + lagPause }},
		{"two voters", 2, false, []string{"a", "b"}, nil},
		{"one voter", 1, false, []string{"a", "b"}, nil},
		{"a witness", 3, true, []string{"a", "b"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, tc.voters, tc.voters, func(c *cluster) {
				if tc.witness {
					c.witnesses = append(c.witnesses, "n3")
				}
			})
			lead, answers := lagging(c, tc.keys...)
			if tc.before != nil {
				tc.before(c, lead)
			}
			c.still("the answers", func() bool {
				if lead.group().lagging > 0 {
					t.Fatal("lags")
				}
				return answers.Load() == int32(len(tc.keys))
			})
		})
	}
}
