package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// sink is a SnapshotSink whose ends are reported.
type sink struct {
	data     bytes.Buffer
	wrote    chan int
	ended    chan string // "finish" or "abort"
	writeErr error
	finErr   error
}

func newSink() *sink { return &sink{wrote: make(chan int, 1024), ended: make(chan string, 2)} }

func (s *sink) Write(b []byte) error {
	if s.writeErr != nil {
		return s.writeErr
	}
	s.data.Write(b)
	s.wrote <- len(b)
	return nil
}
func (s *sink) Finish() error { s.ended <- "finish"; return s.finErr }
func (s *sink) Abort()        { s.ended <- "abort" }

// chunks returns a next function over n chunks of size bytes, then err.
func chunks(n, size int, err error) func() ([]byte, error) {
	i := 0
	buf := make([]byte, size) // reused, as the contract allows
	return func() ([]byte, error) {
		if i == n {
			return nil, err
		}
		i++
		for j := range buf {
			buf[j] = byte(i)
		}
		return buf, nil
	}
}

func header() *api.SnapshotHeader {
	return &api.SnapshotHeader{ToNode: "b", Group: 7, FromReplica: 1, ToReplica: 2, State: []byte("state"), Floor: 9}
}

// pair links a to a new b, whose snapshots go to s.
func pair(t *testing.T, s *sink, o nodeOptions) (a, b *node) {
	t.Helper()
	a = mustNode(t, "a", o)
	b = mustNode(t, "b", nodeOptions{transport: o.transport, notStarted: true})
	b.in.sink = func(h *api.SnapshotHeader) (SnapshotSink, error) {
		if h.GetGroup() != 7 || h.GetFromNode() != "a" || string(h.GetState()) != "state" || h.GetFormatVersion() != format.Version {
			return nil, fmt.Errorf("unexpected header %v", h)
		}
		return s, nil
	}
	b.start(t)
	link(t, a, b)
	return a, b
}

func TestSnapshot(t *testing.T) {
	s := newSink()
	a, b := pair(t, s, nodeOptions{})
	if err := a.SendSnapshot(context.Background(), header(), chunks(20, 1<<20, io.EOF)); err != nil {
		t.Fatal(err)
	}
	if end := await(t, s.ended, "the end"); end != "finish" {
		t.Fatalf("sink ended with %s", end)
	}
	got := s.data.Bytes()
	if len(got) != 20<<20 {
		t.Fatalf("%d bytes came", len(got))
	}
	for i := range 20 {
		if got[i<<20] != byte(i+1) || got[i<<20+1<<20-1] != byte(i+1) {
			t.Fatalf("chunk %d is not in its place", i)
		}
	}
	if s := a.Stats(); s.SnapshotsSent != 1 || s.SnapshotsSending != 0 || s.SnapshotBytesSent != 20<<20 {
		t.Fatalf("sender counts %+v", s)
	}
	if s := b.Stats(); s.SnapshotsReceived != 1 || s.SnapshotsReceiving != 0 || s.SnapshotBytesRecv != 20<<20 {
		t.Fatalf("receiver counts %+v", s)
	}
}

// TestSnapshotBesideFrames: frames pass while a snapshot is stuck.
func TestSnapshotBesideFrames(t *testing.T) {
	s := newSink()
	s.wrote = make(chan int) // Write blocks until the test reads
	a, b := pair(t, s, nodeOptions{})
	await(t, a.up, "the peer")
	done := make(chan error, 1)
	go func() {
		done <- a.SendSnapshot(context.Background(), header(), chunks(30, 1<<20, io.EOF))
	}()
	await(t, s.wrote, "the first chunk")
	a.Send("b", raftMessage(1, []byte("heartbeat")))
	a.Flush()
	b.collect(t, 1)
	for range 29 {
		await(t, s.wrote, "a chunk")
	}
	if err := await(t, done, "the snapshot"); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotSenderAborts: whatever ends the sender, the sink is aborted.
func TestSnapshotSenderAborts(t *testing.T) {
	t.Run("read error", func(t *testing.T) {
		s := newSink()
		a, _ := pair(t, s, nodeOptions{})
		broken := errors.New("disk is broken")
		next := chunks(3, 100, broken)
		err := a.SendSnapshot(context.Background(), header(), func() ([]byte, error) {
			b, err := next()
			if err != nil {
				await(t, s.wrote, "the first chunk")
			}
			return b, err
		})
		if !errors.Is(err, broken) {
			t.Fatalf("SendSnapshot: %v", err)
		}
		if end := await(t, s.ended, "the end"); end != "abort" {
			t.Fatalf("sink ended with %s", end)
		}
	})
	t.Run("context", func(t *testing.T) {
		s := newSink()
		a, _ := pair(t, s, nodeOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		next := chunks(1, 100, nil)
		err := a.SendSnapshot(ctx, header(), func() ([]byte, error) {
			if b, _ := next(); b != nil {
				return b, nil
			}
			await(t, s.wrote, "the first chunk")
			cancel()
			return []byte("more"), nil
		})
		if !errors.Is(err, context.Canceled) || fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("SendSnapshot: %v", err)
		}
		if end := await(t, s.ended, "the end"); end != "abort" {
			t.Fatalf("sink ended with %s", end)
		}
	})
	t.Run("removed peer", func(t *testing.T) {
		s := newSink()
		a, _ := pair(t, s, nodeOptions{})
		first := true
		err := a.SendSnapshot(context.Background(), header(), func() ([]byte, error) {
			if !first {
				await(t, s.wrote, "the first chunk")
				a.RemovePeer("b")
			}
			first = false
			return []byte("records"), nil
		})
		if !errors.Is(err, errClosing) {
			t.Fatalf("SendSnapshot: %v", err)
		}
		if end := await(t, s.ended, "the end"); end != "abort" {
			t.Fatalf("sink ended with %s", end)
		}
	})
}

// TestSnapshotReceiverRefuses: the sender learns why, and the sink ends once.
func TestSnapshotReceiverRefuses(t *testing.T) {
	full := fault.New(fault.Overloaded, "disk is full")
	for _, c := range []struct {
		name string
		sink func(*sink) func(*api.SnapshotHeader) (SnapshotSink, error)
		to   *api.SnapshotHeader
		end  string
		want string
	}{
		{"sink is refused", func(*sink) func(*api.SnapshotHeader) (SnapshotSink, error) {
			return func(*api.SnapshotHeader) (SnapshotSink, error) { return nil, full }
		}, header(), "", "disk is full"},
		{"write fails", func(s *sink) func(*api.SnapshotHeader) (SnapshotSink, error) {
			s.writeErr = full
			return nil
		}, header(), "abort", "disk is full"},
		{"finish fails", func(s *sink) func(*api.SnapshotHeader) (SnapshotSink, error) {
			s.finErr = full
			return nil
		}, header(), "finish", "disk is full"},
		{"newer format", func(*sink) func(*api.SnapshotHeader) (SnapshotSink, error) { return nil },
			&api.SnapshotHeader{ToNode: "b", Group: 7, FormatVersion: format.Version + 1}, "", "format version is not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSink()
			a, b := pair(t, s, nodeOptions{})
			if f := c.sink(s); f != nil {
				b.in.sink = f
			}
			err := a.SendSnapshot(context.Background(), c.to, chunks(200, 1<<18, io.EOF))
			if fault.CodeOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("SendSnapshot: %v", err)
			}
			if c.end != "" {
				if end := await(t, s.ended, "the end"); end != c.end {
					t.Fatalf("sink ended with %s", end)
				}
			}
			if len(s.ended) != 0 {
				t.Fatalf("sink ended again with %s", <-s.ended)
			}
		})
	}
}

// TestSnapshotReceiverDies: a receiver that is killed or closed in the middle.
func TestSnapshotReceiverDies(t *testing.T) {
	for name, kill := range map[string]func(*node){
		"killed": (*node).shut,
		"closed": func(n *node) { _ = n.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink()
			a, b := pair(t, s, nodeOptions{})
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				await(t, s.wrote, "the first chunk")
				kill(b)
			}()
			err := a.SendSnapshot(context.Background(), header(), func() ([]byte, error) { return make([]byte, 1<<16), nil })
			if fault.CodeOf(err) != fault.Unavailable {
				t.Fatalf("SendSnapshot: %v", err)
			}
			<-killed
			if end := await(t, s.ended, "the end"); end != "abort" {
				t.Fatalf("sink ended with %s", end)
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		a := mustNode(t, "a", nodeOptions{})
		if err := a.SetPeer("b", "127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
		if err := a.SendSnapshot(context.Background(), header(), chunks(1, 1, io.EOF)); fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("SendSnapshot: %v", err)
		}
		if err := a.SendSnapshot(context.Background(), &api.SnapshotHeader{ToNode: "x"}, nil); fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("SendSnapshot to nobody: %v", err)
		}
	})
}

// TestSnapshotStall: neither side waits for ever for the other.
func TestSnapshotStall(t *testing.T) {
	stall := func(of keyspace.NodeID) nodeOptions { // the other side is patient
		return nodeOptions{transport: func(o *Options) {
			if o.Node == of {
				o.SnapshotStall = 2 * time.Second
			}
		}}
	}
	t.Run("sender", func(t *testing.T) {
		s := newSink()
		_, b := pair(t, s, stall("b"))
		c := mustNode(t, "c", nodeOptions{})
		b.in.sink = func(*api.SnapshotHeader) (SnapshotSink, error) { return s, nil }
		link(t, c, b)
		first := true
		err := c.SendSnapshot(context.Background(), header(), func() ([]byte, error) {
			if !first {
				if end := await(t, s.ended, "the end of patience"); end != "abort" {
					t.Errorf("sink ended with %s", end)
				}
				return nil, io.EOF
			}
			first = false
			return []byte("records"), nil
		})
		if fault.CodeOf(err) != fault.Unavailable {
			t.Fatalf("SendSnapshot: %v", err)
		}
	})
	t.Run("receiver", func(t *testing.T) {
		s := newSink()
		s.wrote = make(chan int)
		a, _ := pair(t, s, stall("a"))
		err := a.SendSnapshot(context.Background(), header(), func() ([]byte, error) { return make([]byte, 1<<20), nil })
		if !errors.Is(err, errStalled) {
			t.Fatalf("SendSnapshot: %v", err)
		}
		for ended := false; !ended; {
			select {
			case <-s.wrote: // the write that was stuck, and what came before the end was seen
			case end := <-s.ended:
				if ended = true; end != "abort" {
					t.Fatalf("sink ended with %s", end)
				}
			}
		}
	})
}

// TestSnapshotLimits: more senders wait their turn, more receivers refuse.
func TestSnapshotLimits(t *testing.T) {
	s := newSink()
	a, b := pair(t, s, nodeOptions{transport: func(o *Options) { o.SendSnapshots, o.ReceiveSnapshots = 1, 1 }})
	c := mustNode(t, "c", nodeOptions{})
	link(t, c, b)
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		once := false
		done <- a.SendSnapshot(context.Background(), header(), func() ([]byte, error) {
			if once {
				close(inside)
				<-leave
				return nil, io.EOF
			}
			once = true
			return []byte("records"), nil
		})
	}()
	<-inside
	await(t, s.wrote, "the first chunk")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.SendSnapshot(ctx, header(), nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("a second snapshot did not wait: %v", err)
	}
	if err := c.SendSnapshot(context.Background(), header(), chunks(1, 1, io.EOF)); err == nil || !strings.Contains(err.Error(), "as many snapshots as it may") {
		t.Fatalf("a second sender was not refused: %v", err)
	}
	close(leave)
	if err := await(t, done, "the snapshot"); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotMalformed feeds streams that no sender of ours makes.
func TestSnapshotMalformed(t *testing.T) {
	h := header()
	h.ClusterId, h.FromNode, h.FormatVersion = testCluster, "a", format.Version
	elsewhere := header()
	elsewhere.ClusterId, elsewhere.FromNode, elsewhere.ToNode, elsewhere.FormatVersion = testCluster, "a", "c", format.Version
	records := []byte("records")
	good := &api.SnapshotChunk{Records: records, Crc32C: crc32.Checksum(records, castagnoli)}
	for _, c := range []struct {
		name   string
		stream []*api.SnapshotChunk
		want   string
	}{
		{"nothing", nil, "without its end mark"},
		{"no header", []*api.SnapshotChunk{good}, "without a header"},
		{"for another node", []*api.SnapshotChunk{{Header: elsewhere}}, "addressed to another node"},
		{"no end", []*api.SnapshotChunk{{Header: h}, good}, "without its end mark"},
		{"two headers", []*api.SnapshotChunk{{Header: h}, {Header: h}}, "second header"},
		{"damaged", []*api.SnapshotChunk{{Header: h}, {Records: records, Crc32C: 1}}, "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSink()
			_, b := pair(t, s, nodeOptions{})
			client, err := b.ClientAt(b.addr)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := client.Snapshot(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, chunk := range c.stream {
				_ = stream.Send(chunk)
			}
			done, err := stream.CloseAndRecv()
			if err != nil || done.GetAccepted() || !strings.Contains(done.GetReason(), c.want) {
				t.Fatalf("answer %v, %v", done, err)
			}
			if len(c.stream) > 1 {
				if end := await(t, s.ended, "the end"); end != "abort" {
					t.Fatalf("sink ended with %s", end)
				}
			}
		})
	}
}
