package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// TestDelivery sends messages of all kinds and sizes and expects each once, in
// order, with the sender's clock.
func TestDelivery(t *testing.T) { overCarriers(t, testDelivery) }

func testDelivery(t *testing.T, streams bool) {
	a, b := mustNode(t, "a", nodeOptions{streams: streams}), mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b)
	await(t, a.up, "the peer")

	const count = 3000
	for i := range count {
		body := make([]byte, 8+i%300)
		if i%500 == 499 {
			body = make([]byte, 3<<20) // larger than a frame
		}
		binary.BigEndian.PutUint64(body, uint64(i))
		a.Send("b", raftMessage(uint32(i), body))
		// The caller may use its bytes again at once.
		for j := range body {
			body[j] = 0xff
		}
		if i%7 == 0 {
			a.Flush()
		}
	}
	a.Flush()
	got := 0
	for got < count {
		d := await(t, b.in.frames, "a frame")
		if d.from != "a" || d.clockMS != 1234 {
			t.Fatalf("frame from %q at %d", d.from, d.clockMS)
		}
		for _, m := range d.msgs {
			if n := binary.BigEndian.Uint64(m.GetRaft()); n != uint64(got) || m.GetGroup() != uint32(got) {
				t.Fatalf("message %d of group %d came in place %d", n, m.GetGroup(), got)
			}
			got++
		}
	}
	for a.Stats().Peers[0].Messages < count { // counted once the write has returned
		runtime.Gosched()
	}
	if s := a.Stats().Peers[0]; s.Messages != count || s.DroppedFull+s.DroppedDown+s.DroppedTooLarge != 0 || !s.Up || s.Version != "test" {
		t.Fatalf("sender counts %+v", s)
	}
}

// TestCoalescing expects what is queued between two sends in one frame, and a
// message above the frame size alone.
func TestCoalescing(t *testing.T) { overCarriers(t, testCoalescing) }

func testCoalescing(t *testing.T, streams bool) {
	a := mustNode(t, "a", nodeOptions{notStarted: true, streams: streams})
	b := mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b)
	for i := range 500 {
		a.Send("b", raftMessage(uint32(i), make([]byte, 100)))
	}
	a.Send("b", raftMessage(500, make([]byte, 2<<20)))
	a.Send("b", &api.GroupMessage{Group: 501, Body: &api.GroupMessage_Closed{Closed: &api.ClosedUpdate{Term: 1, Index: 2, Closed: 3}}})
	a.Flush()
	a.start(t)
	for i, want := range []int{500, 1, 1} {
		if d := await(t, b.in.frames, "a frame"); len(d.msgs) != want {
			t.Fatalf("frame %d has %d messages, want %d", i, len(d.msgs), want)
		} else if i == 2 && d.msgs[0].GetClosed().GetClosed() != 3 {
			t.Fatalf("last message is %v", d.msgs[0])
		}
	}
}

// TestReconnect restarts the receiver at the same address: what was queued in
// between may be lost, later messages come.
func TestReconnect(t *testing.T) { overCarriers(t, testReconnect) }

func testReconnect(t *testing.T, streams bool) {
	a := mustNode(t, "a", nodeOptions{streams: streams})
	b := mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b)
	for range 3 {
		await(t, a.up, "the peer")
		a.Send("b", raftMessage(1, []byte("x")))
		a.Flush()
		b.collect(t, 1)
		b.shut()
		if err := await(t, a.down, "the loss of the peer"); err == nil {
			t.Fatal("the stream ended without a reason")
		}
		b = mustNode(t, "b", nodeOptions{addr: b.addr, streams: streams})
	}
	await(t, a.up, "the peer")
	if n := a.Stats().Peers[0].Sessions; n != 4 {
		t.Fatalf("%d sessions", n)
	}
}

// TestMovedPeer changes a peer's address.
func TestMovedPeer(t *testing.T) { overCarriers(t, testMovedPeer) }

func testMovedPeer(t *testing.T, streams bool) {
	a, b := mustNode(t, "a", nodeOptions{streams: streams}), mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b)
	await(t, a.up, "the peer")
	link(t, a, b) // the same again changes nothing
	b2 := mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b2)
	await(t, a.up, "the peer at its new address")
	a.Send("b", raftMessage(1, []byte("x")))
	a.Flush()
	b2.collect(t, 1)
	a.RemovePeer("b")
	a.Send("b", raftMessage(1, []byte("x")))
	if n := a.Stats().DroppedUnknown; n != 1 || a.Up("b") {
		t.Fatalf("dropped %d for unknown nodes", n)
	}
	if _, err := a.Client("b"); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("client of a removed peer: %v", err)
	}
}

// TestGreetingRefused: senders and receivers compare cluster, node and format.
func TestGreetingRefused(t *testing.T) {
	other := mustNode(t, "b", nodeOptions{cluster: "cluster-2"})
	b := mustNode(t, "b", nodeOptions{})
	for _, c := range []struct {
		name, peer, addr, want string
	}{
		{"another cluster", "b", other.addr, "peer belongs to another cluster"},
		{"another node", "c", b.addr, "another node answers at the peer's address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := mustNode(t, "a", nodeOptions{})
			if err := a.SetPeer(keyspace.NodeID(c.peer), c.addr); err != nil {
				t.Fatal(err)
			}
			if line := await(t, a.logged, "a refusal"); !strings.Contains(line, c.want) {
				t.Fatalf("logged %q", line)
			}
			if a.Up(keyspace.NodeID(c.peer)) {
				t.Fatal("peer is up")
			}
		})
	}
	for _, c := range []struct {
		name string
		req  *api.HelloRequest
		want fault.Code
	}{
		{"cluster", &api.HelloRequest{ClusterId: "x", NodeId: "a", FormatVersion: format.Version}, fault.FailedPrecondition},
		{"no node", &api.HelloRequest{ClusterId: testCluster, FormatVersion: format.Version}, fault.InvalidArgument},
		{"too old", &api.HelloRequest{ClusterId: testCluster, NodeId: "a", FormatVersion: format.MinVersion - 1}, fault.FailedPrecondition},
		{"newer", &api.HelloRequest{ClusterId: testCluster, NodeId: "a", FormatVersion: format.Version + 5}, ""},
	} {
		if _, err := b.HandleHello(context.Background(), c.req); fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want code %q", c.name, err, c.want)
		}
	}
}

// goodFrame is one that node b takes from node a.
func goodFrame() *api.Frame {
	return &api.Frame{
		ClusterId: testCluster, FromNode: "a", ToNode: "b", FormatVersion: format.Version,
		Messages: []*api.GroupMessage{raftMessage(1, []byte("x"))},
	}
}

// TestFramesRefused: a frame that is not for this node, cluster or format ends
// its stream and is not delivered, first or later.
func TestFramesRefused(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	client, err := b.ClientAt(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*api.Frame){
		"cluster": func(f *api.Frame) { f.ClusterId = "cluster-2" },
		"to":      func(f *api.Frame) { f.ToNode = "c" },
		"no from": func(f *api.Frame) { f.FromNode = "" },
		"self":    func(f *api.Frame) { f.FromNode = "b" },
		"format":  func(f *api.Frame) { f.FormatVersion = format.Version + 1 },
		"old":     func(f *api.Frame) { f.FormatVersion = format.MinVersion - 1 },
		"sender":  func(f *api.Frame) { f.FromNode = "c" },
	} {
		for good := range 2 {
			if name == "sender" && good == 0 {
				continue // any sender may come first
			}
			t.Run(fmt.Sprint(name, good), func(t *testing.T) {
				stream, err := client.Frames(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for range good {
					if err := stream.Send(goodFrame()); err != nil {
						t.Fatal(err)
					}
				}
				bad := goodFrame()
				spoil(bad)
				_ = stream.Send(bad)
				if _, err := stream.CloseAndRecv(); err == nil {
					t.Fatal("the stream ended well")
				}
				b.collect(t, good)
			})
		}
	}
	if n := b.Stats().RefusedFrames; n != 13 {
		t.Fatalf("counted %d refused frames", n)
	}
}

// TestNewerStreamEndsOlder: a sender that connects again replaces the stream
// that its broken connection left behind.
func TestNewerStreamEndsOlder(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	client, err := b.ClientAt(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var older api.Peer_FramesClient
	for i := range 3 {
		stream, err := client.Frames(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(goodFrame()); err != nil {
			t.Fatal(err)
		}
		b.collect(t, 1)
		if i > 0 {
			if err := older.RecvMsg(&api.FramesDone{}); err == nil || !strings.Contains(err.Error(), "replaced") {
				t.Fatalf("the older stream ended with %v", err)
			}
		}
		older = stream
	}
}

// TestCloseEndsHandlers: Close returns while peers still hold streams, before
// the server is stopped.
func TestCloseEndsHandlers(t *testing.T) { overCarriers(t, testCloseEndsHandlers) }

func testCloseEndsHandlers(t *testing.T, streams bool) {
	a, b := mustNode(t, "a", nodeOptions{streams: streams}), mustNode(t, "b", nodeOptions{streams: streams})
	link(t, a, b)
	await(t, a.up, "the peer")
	a.Send("b", raftMessage(1, bytes.Repeat([]byte("x"), 10)))
	a.Flush()
	b.collect(t, 1)
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	if err := await(t, closed, "Close"); err != nil {
		t.Fatal(err)
	}
	if err := await(t, a.down, "the end of the stream"); err == nil {
		t.Fatal("the stream ended without a reason")
	}
	if err := b.SetPeer("c", "127.0.0.1:1"); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("SetPeer after Close: %v", err)
	}
	if _, err := b.ClientAt("127.0.0.1:1"); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("ClientAt after Close: %v", err)
	}
}
