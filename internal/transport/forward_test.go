package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/pipelink"
	"kvstore/internal/tlsconf"
)

// echoed answers each put with a get of its value.
func echoed(stream api.Peer_ForwardServer) error {
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp := &api.PipelineResponse{}
		for _, op := range f.GetOps() {
			rec := &api.Record{Key: f.GetIdentity(), Value: op.GetPut().GetValue()}
			resp.Results = append(resp.Results, &api.PipelineResult{Id: op.GetId(), Result: &api.PipelineResult_Get{Get: &api.GetResponse{Record: rec}}})
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// until is a handler that tells of a stream once it has its first frame, and of its
// context's end.
func until(taken, ended chan struct{}) ServeForward {
	return func(stream api.Peer_ForwardServer) error {
		_, err := stream.Recv()
		if err != nil {
			return err
		}
		taken <- struct{}{}
		_, err = stream.Recv()
		<-stream.Context().Done()
		ended <- struct{}{}
		return err
	}
}

func putFrame(id uint64, value []byte) *api.ForwardFrame {
	return &api.ForwardFrame{Identity: "alice", Ops: []*api.PipelineOp{{Id: id, Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: "k", Value: value}}}}}
}

func mustForward(t testing.TB, from, to *node) (ForwardStream, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := from.Forward(ctx, to.id)
	if err != nil {
		t.Fatal(err)
	}
	return s, cancel
}

// exchange sends values and gets them back.
func exchangeValues(t *testing.T, s ForwardStream, values ...[]byte) {
	t.Helper()
	for i, v := range values {
		if err := s.Send(putFrame(uint64(i), v)); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		rec := resp.Results[0].GetGet().GetRecord()
		if resp.Results[0].Id != uint64(i) || rec.GetKey() != "alice" || !bytes.Equal(rec.GetValue(), v) {
			t.Fatalf("value %d of %d bytes came back as %d", i, len(v), len(rec.GetValue()))
		}
	}
}

func sizes() [][]byte {
	var values [][]byte
	for _, n := range []int{0, 1, pipelink.BufferBytes - 50, pipelink.BufferBytes, 300 << 10, 16 << 20} {
		values = append(values, bytes.Repeat([]byte{byte(n)}, n))
	}
	return values
}

// Operations go by a link where both sides take links, else by gRPC; what they say
// is the same.
func TestForwardCarriers(t *testing.T) {
	dir := t.TempDir()
	_, sa := mustTLS(t, dir, "a")
	_, sb := mustTLS(t, dir, "b")
	for name, c := range map[string]struct{ secure, streams, forwardStreams, link bool }{
		"link":                  {link: true},
		"link with TLS":         {secure: true, link: true},
		"before links":          {streams: true},
		"frames only":           {forwardStreams: true},
		"before links with TLS": {secure: true, streams: true},
		"frames only with TLS":  {secure: true, forwardStreams: true},
	} {
		for _, greeted := range []bool{false, true} {
			a, b := nodeOptions{notStarted: !greeted}, nodeOptions{}
			if c.secure {
				a, b = withTLS(sa, "", false), withTLS(sb, "", false)
				a.notStarted = !greeted
			}
			b.streams, b.forwardStreams, b.forward = c.streams, c.forwardStreams, echoed
			from, to := mustNode(t, "a", a), mustNode(t, "b", b)
			link(t, from, to)
			if greeted {
				await(t, from.up, "the peer")
			}
			s, cancel := mustForward(t, from, to)
			exchangeValues(t, s, sizes()...)
			if got := len(to.forwards.slots) == 1; got != c.link {
				t.Errorf("%s, greeted %t: a link: %t", name, greeted, got)
			}
			if known := (*from.peers.Load())["b"].forwards.Load(); greeted && (known == forwardsByLinks) != c.link || !greeted && !c.link && known != forwardsByGRPC {
				t.Errorf("%s, greeted %t: remembers %d", name, greeted, known)
			}
			cancel()
			if _, err := s.Recv(); err == nil {
				t.Errorf("%s: a stream that was ended goes on", name)
			}
			from.shut()
			to.shut()
		}
	}
}

// A peer of a version that knows no other protocols in TLS.
func TestForwardToAnotherProtocol(t *testing.T) {
	_, s := mustTLS(t, t.TempDir(), "a")
	old := s.PeerServer()
	follow := old.GetConfigForClient
	old.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := follow(h)
		if err != nil {
			return nil, err
		}
		c = c.Clone()
		c.NextProtos = []string{"h2"}
		return c, nil
	}
	o := withTLS(s, "", true)
	o.serverCreds, o.forward = credentials.NewTLS(old), echoed
	ao := withTLS(s, "", true)
	ao.notStarted = true
	a, b := mustNode(t, "a", ao), mustNode(t, "b", o)
	link(t, a, b)
	stream, cancel := mustForward(t, a, b)
	defer cancel()
	exchangeValues(t, stream, []byte("x"))
}

// A peer that comes back in a version that takes links gets one.
func TestForwardAfterUpgrade(t *testing.T) {
	a, b := mustNode(t, "a", nodeOptions{}), mustNode(t, "b", nodeOptions{streams: true, forward: echoed})
	link(t, a, b)
	await(t, a.up, "the peer")
	s, _ := mustForward(t, a, b)
	exchangeValues(t, s, []byte("x"))
	b.shut()
	if err := await(t, a.down, "the loss of the peer"); err == nil {
		t.Fatal("it ended without a reason")
	}
	if _, err := s.Recv(); err == nil {
		t.Fatal("the stream goes on")
	}
	b = mustNode(t, "b", nodeOptions{addr: b.addr, forward: echoed})
	await(t, a.up, "the peer")
	s, _ = mustForward(t, a, b)
	exchangeValues(t, s, []byte("x"))
	if len(b.forwards.slots) != 1 {
		t.Fatal("no link")
	}
}

// rawForward opens a link by hand.
func rawForward(t *testing.T, to *node, md metadata.MD) (*pipelink.Caller, error) {
	t.Helper()
	return pipelink.Open(dialRaw(t, to, []byte(tlsconf.ForwardProtocol+"\n")), md, MaxMessageBytes)
}

func goodHello() metadata.MD {
	return metadata.Pairs(nodeHeader, "a", clusterHeader, testCluster, toHeader, "b", recoveryHeader, "0")
}

// A link is refused for what a frame is refused for, before anything was sent.
func TestForwardRefusesHellos(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{forward: func(api.Peer_ForwardServer) error {
		t.Error("a refused link was served")
		return nil
	}})
	b.SetGone(map[keyspace.NodeID]string{"x": "this node was removed"})
	for name, c := range map[string]struct{ header, value, want string }{
		"cluster":   {clusterHeader, "cluster-2", "another cluster"},
		"addressee": {toHeader, "c", "another node"},
		"no sender": {nodeHeader, "", "no valid sender"},
		"itself":    {nodeHeader, "b", "no valid sender"},
		"recovery":  {recoveryHeader, "3", "recovery of the cluster"},
		"no epoch":  {recoveryHeader, "", "no recovery epoch"},
		"gone":      {nodeHeader, "x", "this node was removed"},
	} {
		md := goodHello()
		md.Set(c.header, c.value)
		if _, err := rawForward(t, b, md); err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, pipelink.ErrNoLinks) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A node whose cluster or router is not there yet says so before anything is sent.
func TestForwardBeforeStart(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{forward: func(api.Peer_ForwardServer) error {
		return status.Error(codes.Unavailable, "node is starting")
	}})
	a := mustNode(t, "a", nodeOptions{})
	link(t, a, b)
	await(t, a.up, "the peer")
	if _, err := a.Forward(t.Context(), "b"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "node is starting") {
		t.Fatalf("error %v", err)
	}
	if _, err := a.Forward(t.Context(), "c"); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("an unknown peer: %v", err)
	}
}

// A port with TLS takes no link without a certificate of its authority, and a node
// opens none to another one's. gRPC, which plaintext falls back to, does not get
// through either.
func TestForwardNeedsCertificate(t *testing.T) {
	dir := t.TempDir()
	_, s := mustTLS(t, dir, "b")
	_, foreign := mustTLS(t, t.TempDir(), "a")
	o := withTLS(s, "", false)
	o.forward = func(api.Peer_ForwardServer) error {
		t.Error("served")
		return nil
	}
	b := mustNode(t, "b", o)
	closed(t, dialRaw(t, b, []byte(tlsconf.ForwardProtocol+"\n")))
	config := s.Client()
	config.Certificates = nil
	config.ServerName, config.NextProtos = "localhost", []string{tlsconf.ForwardProtocol}
	if _, err := pipelink.Open(tls.Client(dialRaw(t, b, nil), config), goodHello(), MaxMessageBytes); err == nil {
		t.Error("a link without a certificate")
	}
	for name, o := range map[string]nodeOptions{"plaintext": {}, "foreign": withTLS(foreign, "", false)} {
		o.notStarted = true
		a := mustNode(t, "a", o)
		link(t, a, b)
		stream, err := a.Forward(t.Context(), "b")
		if err == nil { // by gRPC, which does not get through either
			_, err = stream.Recv()
		}
		if err == nil {
			t.Errorf("%s: forwards", name)
		}
	}
	if len(b.forwards.slots) != 0 {
		t.Error("a link is open")
	}
}

// What makes a link impermissible ends it.
func TestForwardEndsWithItsRight(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(a, b *node)
		want string
	}{
		"gone":     {func(_, b *node) { b.SetGone(map[keyspace.NodeID]string{"a": "this node was removed"}) }, "this node was removed"},
		"recovery": {func(_, b *node) { b.SetRecovery(Recovery{Epoch: 2}) }, "recovery of the cluster"},
		"address":  {func(a, _ *node) { a.RemovePeer("b") }, "not known"},
	} {
		taken, ended := make(chan struct{}, 1), make(chan struct{}, 1)
		a, b := mustNode(t, "a", nodeOptions{}), mustNode(t, "b", nodeOptions{forward: until(taken, ended)})
		link(t, a, b)
		await(t, a.up, "the peer")
		s, _ := mustForward(t, a, b)
		if err := s.Send(putFrame(1, nil)); err != nil {
			t.Fatal(err)
		}
		await(t, taken, "a frame")
		change.do(a, b)
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: the link ends with %v", name, err)
		}
		await(t, ended, "the handler's context")
		if _, err := a.Forward(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: another link: %v", name, err)
		}
	}
}

// The end of a link in the middle is known on both sides, whoever ends it and how.
func TestForwardBreaks(t *testing.T) {
	for name, end := range map[string]func(a, b *node, cancel context.CancelFunc){
		"caller":       func(_, _ *node, cancel context.CancelFunc) { cancel() },
		"here closes":  func(a, _ *node, _ context.CancelFunc) { _ = a.Close() },
		"there closes": func(_, b *node, _ context.CancelFunc) { _ = b.Close() },
		"pings stop":   func(_, b *node, _ context.CancelFunc) { b.server.Stop() },
	} {
		taken, ended := make(chan struct{}, 1), make(chan struct{}, 1)
		a, b := mustNode(t, "a", nodeOptions{}), mustNode(t, "b", nodeOptions{forward: until(taken, ended)})
		link(t, a, b)
		await(t, a.up, "the peer")
		s, cancel := mustForward(t, a, b)
		if err := s.Send(putFrame(1, nil)); err != nil {
			t.Fatal(err)
		}
		await(t, taken, "a frame")
		// The connection beside the link, whose pings it needs.
		client, err := a.Client("b")
		if err == nil {
			_, err = client.Hello(t.Context(), hello())
		}
		if err != nil {
			t.Fatal(err)
		}
		end(a, b, cancel)
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: the link ends with %v", name, err)
		}
		if err := s.Send(putFrame(2, nil)); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: and takes more: %v", name, err)
		}
		await(t, ended, "the handler's context")
		cancel()
	}
}

// A connection that ends within a frame ends the stream.
func TestForwardEndsWithinFrame(t *testing.T) {
	taken, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	b := mustNode(t, "b", nodeOptions{forward: until(taken, ended)})
	conn := dialRaw(t, b, []byte(tlsconf.ForwardProtocol+"\n"))
	l, err := pipelink.Open(conn, goodHello(), MaxMessageBytes)
	if err == nil {
		err = l.Send(putFrame(1, nil))
	}
	if err == nil {
		_, err = conn.Write([]byte{byte(pipelink.Frame), 0, 0, 1, 0, 'x'})
	}
	if err != nil {
		t.Fatal(err)
	}
	await(t, taken, "a frame")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	await(t, ended, "the handler's context")
}

// Frames above the limit are sent by neither side, and refused.
func TestForwardBoundsFrames(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{forward: echoed})
	a := mustNode(t, "a", nodeOptions{})
	link(t, a, b)
	await(t, a.up, "the peer")
	s, cancel := mustForward(t, a, b)
	defer cancel()
	if err := s.Send(putFrame(1, make([]byte, MaxMessageBytes))); fault.CodeOf(err) != fault.MessageTooLarge {
		t.Fatalf("sent: %v", err)
	}
	exchangeValues(t, s, []byte("x")) // nothing of it was
	conn := dialRaw(t, b, []byte(tlsconf.ForwardProtocol+"\n"))
	l, err := pipelink.Open(conn, goodHello(), MaxMessageBytes)
	if err == nil {
		_, err = conn.Write([]byte{byte(pipelink.Frame), 0xff, 0, 0, 0})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Receive(new(api.PipelineResponse)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Fatalf("received: %v", err)
	}
}

// One link more than the bound is refused, and the bound is that of links that are open.
func TestForwardsAreBounded(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{forward: echoed})
	for range maxForwards {
		b.forwards.slots <- struct{}{}
	}
	if _, err := rawForward(t, b, goodHello()); !errors.Is(err, pipelink.ErrNoLinks) {
		t.Fatalf("error %v", err)
	}
	<-b.forwards.slots
	if _, err := rawForward(t, b, goodHello()); err != nil {
		t.Fatal(err)
	}
}

// A peer that accepts and says nothing is given up in time.
func TestForwardOpensInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a := mustNode(t, "a", nodeOptions{notStarted: true, transport: func(o *Options) { o.HelloTimeout = 50 * time.Millisecond }})
	if err := a.SetPeer("b", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Forward(t.Context(), "b"); status.Code(err) != codes.Unavailable {
		t.Fatalf("error %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Forward(t.Context(), "b"); fault.CodeOf(err) != fault.Unavailable {
		t.Fatalf("after the end: %v", err)
	}
}

// The server of the peer port has stopped when its handlers have: what they read is
// closed after it.
func TestStopWaitsForHandlers(t *testing.T) {
	serving, stopped, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	from := mustNode(t, "a", nodeOptions{notStarted: true})
	to := mustNode(t, "b", nodeOptions{streams: true, forward: func(stream api.Peer_ForwardServer) error {
		defer close(left)
		close(serving)
		<-stream.Context().Done()
		select {
		case <-stopped:
			t.Error("the server stopped before what it served")
		case <-time.After(100 * time.Millisecond):
		}
		return nil
	}})
	link(t, from, to)
	_, cancel := mustForward(t, from, to)
	defer cancel()
	await(t, serving, "the handler")
	to.server.Stop()
	close(stopped)
	await(t, left, "the end of the handler")
}
