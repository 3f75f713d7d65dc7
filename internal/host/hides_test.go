package host

import (
	"math/rand/v2"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// A node whose log may have lost any group's replica says so when it is to take
// one that it does not know, also while it has others that it rebuilds.
func TestNodeThatHidesReplicasSaysSo(t *testing.T) {
	const other = testGroup + 1
	c := newCluster(t, 4, 3, func(c *cluster) { c.more = []keyspace.GroupID{other} })
	n := c.nodes[3]
	if _, err := c.change(MemberChange{AddLearner: n.id}); err != nil {
		t.Fatal(err)
	}
	c.pump("it has one of the groups", func() bool { return n.group() != nil && n.host.Groups()[0].Applied > 0 })
	n.stop()
	n.disk = hidesReplicas(t, n.disk.Crash(rand.New(rand.NewPCG(5, 6))))
	n.open()
	if len(n.host.Groups()) == 0 || n.host.HidesReplicas() {
		t.Fatalf("it has %d groups, and says already that it hides replicas: %v", len(n.host.Groups()), n.host.HidesReplicas())
	}
	c.nodes[0].host.ChangeMembersAsync(other, MemberChange{AddLearner: n.id}, func(keyspace.ReplicaID, error) {})
	c.pump("it says why it does not take the other", n.host.HidesReplicas)
	if n.host.groups[other] != nil {
		t.Error("it has taken a replica that may have lived there")
	}
}

// hidesReplicas flips a bit, so that the log is damaged where any group could be.
func hidesReplicas(t *testing.T, disk *simfs.FS) *simfs.FS {
	t.Helper()
	for _, name := range disk.Files() {
		for at := int64(0); at < 16<<10; at += 7 {
			damaged := func() *simfs.FS { return disk.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} }) }
			trial := damaged()
			if trial.FlipBit(name, at, 3) != nil {
				break
			}
			log, err := raftlog.Open(trial, "log", raftlog.Options{SegmentBytes: 256 << 10, Inline: true, Rand: rand.New(rand.NewPCG(1, 2))})
			if err != nil {
				continue
			}
			if hidden := log.Hidden() && len(log.Groups()) == 1 && log.Groups()[0].Replica != 0; !hidden {
				continue
			}
			out := damaged()
			if err := out.FlipBit(name, at, 3); err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	t.Fatal("no bit of the log hides the replicas")
	return nil
}
