package transport

import (
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// G6: what is left of a cluster before its recovery is told so, whoever of the
// two says hello, and nothing that it sends is delivered.
func TestNodesOfBeforeARecoveryGo(t *testing.T) {
	overCarriers(t, func(t *testing.T, streams bool) {
		outdated := make(chan uint64, 1024)
		old := mustNode(t, "old", nodeOptions{streams: streams, transport: func(o *Options) {
			o.OnOutdated = func(epoch uint64) { outdated <- epoch }
		}})
		a := mustNode(t, "a", nodeOptions{streams: streams})
		link(t, old, a)
		await(t, old.up, "the old node to connect")
		a.SetRecovery(Recovery{Epoch: 3, Survivors: []keyspace.NodeID{"a", "b"}})
		old.Send("a", raftMessage(1, []byte("late")))
		old.Flush()
		if epoch := await(t, outdated, "the old node to learn of the recovery"); epoch != 3 {
			t.Fatalf("epoch %d", epoch)
		}
		select {
		case d := <-a.in.frames:
			t.Fatalf("delivered %v", d)
		default:
		}
		err := await(t, old.down, "the stream to end")
		if !strings.Contains(err.Error(), "recovery") {
			t.Fatalf("ended by %v", err)
		}
		// The other way round: the old node is spoken to.
		if _, err := old.HandleHello(t.Context(), &api.HelloRequest{ClusterId: testCluster, NodeId: "a", FormatVersion: 1, RecoveryEpoch: 3,
			Survivors: []string{"a", "b"}}); fault.CodeOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "delete its data directory") {
			t.Fatalf("hello: %v", err)
		}
	})
}

// A survivor that the recovery has not reached yet waits, and takes part as
// soon as it has.
func TestSurvivorWaitsForTheRecovery(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{transport: func(o *Options) {
		o.OnOutdated = func(uint64) { t.Error("a survivor is told to go") }
	}})
	a := mustNode(t, "a", nodeOptions{})
	r := Recovery{Epoch: 1, Survivors: []keyspace.NodeID{"a", "b"}}
	a.SetRecovery(r)
	link(t, b, a)
	link(t, a, b)
	_, err := b.HandleHello(t.Context(), &api.HelloRequest{ClusterId: testCluster, NodeId: "a", FormatVersion: 1, RecoveryEpoch: 1, Survivors: r.survivors()})
	if fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("hello: %v", err)
	}
	b.SetRecovery(r)
	await(t, a.up, "a to connect")
	await(t, b.up, "b to connect")
	a.Send("b", raftMessage(1, []byte("x")))
	a.Flush()
	b.collect(t, 1)
}
