package transport

import (
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// A node that was removed is told so when it greets, its stream that is open is
// ended, and nothing that it sends or asks is taken.
func TestNothingIsTakenOfNodesThatAreGone(t *testing.T) {
	overCarriers(t, func(t *testing.T, streams bool) {
		told := make(chan string, 1024)
		left := mustNode(t, "left", nodeOptions{streams: streams, transport: func(o *Options) {
			o.OnGone = func(text string) { told <- text }
		}})
		a := mustNode(t, "a", nodeOptions{streams: streams})
		link(t, left, a)
		await(t, left.up, "the node to connect")
		left.Send("a", raftMessage(1, []byte("in time")))
		left.Flush()
		a.collect(t, 1)
		a.SetGone(map[keyspace.NodeID]string{"left": "this node was removed"})
		if err := await(t, left.down, "the open stream to end"); err == nil {
			t.Fatal("the open stream ended without a reason")
		}
		if text := await(t, told, "the node to be told"); text != "this node was removed" {
			t.Fatalf("told %q", text)
		}
		left.Send("a", raftMessage(1, []byte("late")))
		left.Flush()
		await(t, told, "the node to be told again")
		select {
		case d := <-a.in.frames:
			t.Fatalf("delivered %v", d)
		default:
		}
		if err := a.checkAddress(testCluster, "left", "a", 1); fault.CodeOf(err) != fault.FailedPrecondition {
			t.Fatalf("a frame or snapshot: %v", err)
		}
		// What is not frames. The nodes of this test answer Hello and nothing else, so
		// a call that got through would fail in another way.
		client, err := left.Client("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Call(t.Context(), &api.CallRequest{Method: "List"}); err == nil || !strings.Contains(err.Error(), "this node was removed") {
			t.Fatalf("a call: %v", err)
		}
		forward, err := client.Forward(t.Context())
		if err == nil {
			_, err = forward.Recv()
		}
		if err == nil || !strings.Contains(err.Error(), "this node was removed") {
			t.Fatalf("forwarded operations: %v", err)
		}
		if _, err := client.Join(t.Context(), &api.JoinRequest{}); err == nil || strings.Contains(err.Error(), "this node was removed") {
			t.Fatalf("a join, which is how it begins anew: %v", err)
		}
	})
}
