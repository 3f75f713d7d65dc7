package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
)

// fakeRouter answers with functions.
type fakeRouter struct {
	Router
	execute func(ctx context.Context, calls []*router.Call, done func(*router.Call))
	scan    func(*api.GroupScanRequest) (*api.GroupScanResponse, error)
	create  func(ctx context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error)
}

func (r *fakeRouter) Execute(ctx context.Context, calls []*router.Call, done func(*router.Call)) {
	r.execute(ctx, calls, done)
}

func (r *fakeRouter) ServeScan(_ context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
	return r.scan(q)
}

func (r *fakeRouter) CreateNamespace(ctx context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error) {
	return r.create(ctx, q)
}

type fakeNode struct{ Streams }

func (fakeNode) Probe(context.Context, *api.ProbeRequest) (*api.ProbeResponse, error) {
	return &api.ProbeResponse{Empty: true, Life: "l"}, nil
}

func (fakeNode) Join(_ context.Context, q *api.JoinRequest) (*api.JoinResponse, error) {
	return &api.JoinResponse{ClusterId: "c-" + q.NodeName}, nil
}

// serve starts a real gRPC server over memory.
func serve(t *testing.T, change ...func(*Options)) (*Server, api.PeerClient) {
	t.Helper()
	o := Options{Streams: fakeNode{}, Prober: fakeNode{}}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	api.RegisterPeerServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		wg.Wait()
	})
	return s, api.NewPeerClient(conn)
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := status.CodeOf(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
}

func TestBeforeTheClusterIsKnown(t *testing.T) {
	s, c := serve(t)
	p, err := c.Probe(t.Context(), &api.ProbeRequest{})
	if err != nil || !p.Empty || p.Life != "l" {
		t.Fatalf("probe %v %v", p, err)
	}
	_, err = c.Join(t.Context(), &api.JoinRequest{})
	wantCode(t, err, fault.Unavailable)
	_, err = c.Call(t.Context(), &api.CallRequest{Method: "Status"})
	wantCode(t, err, fault.Unavailable)
	stream, err := c.Forward(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, err, fault.Unavailable)
	s.Serve(&fakeRouter{}, fakeNode{})
	j, err := c.Join(t.Context(), &api.JoinRequest{NodeName: "b"})
	if err != nil || j.ClusterId != "c-b" {
		t.Fatalf("join %v %v", j, err)
	}
}

func TestCall(t *testing.T) {
	s, c := serve(t)
	s.Serve(&fakeRouter{create: func(ctx context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error) {
		if q.Name == "taken" {
			return nil, fault.New(fault.NamespaceExists, "namespace exists already", "namespace", q.Name)
		}
		return &api.Namespace{Name: q.Name + " by " + router.Identity(ctx)}, nil
	}}, fakeNode{})
	call := func(method, name string) (*api.CallResponse, error) {
		b, err := proto.Marshal(&api.CreateNamespaceRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return c.Call(t.Context(), &api.CallRequest{Method: method, Request: b, Identity: "alice"})
	}
	resp, err := call("CreateNamespace", "n")
	wantCode(t, err, "")
	var ns api.Namespace
	if err := proto.Unmarshal(resp.Response, &ns); err != nil || ns.Name != "n by alice" {
		t.Fatalf("answer %v %v", &ns, err)
	}
	resp, err = call("CreateNamespace", "taken")
	wantCode(t, err, "")
	if resp.Error.GetCode() != string(fault.NamespaceExists) || resp.Error.Details["namespace"] != "taken" {
		t.Fatalf("error %v", resp.Error)
	}
	_, err = call("DropEverything", "")
	wantCode(t, err, fault.Unsupported)
	_, err = c.Call(t.Context(), &api.CallRequest{Method: "CreateNamespace", Request: []byte{0xff}})
	wantCode(t, err, "")
}

func TestErrorsCarryTheLeader(t *testing.T) {
	s, c := serve(t)
	s.Serve(&fakeRouter{scan: func(*api.GroupScanRequest) (*api.GroupScanResponse, error) {
		e := fault.New(fault.WrongLeader, "not here", "group", 3)
		e.Leader = "node-7"
		return nil, e
	}}, fakeNode{})
	_, err := c.GroupScan(t.Context(), &api.GroupScanRequest{})
	wantCode(t, err, fault.WrongLeader)
	if f := status.Fault(err); f.Leader != "node-7" || f.Details["group"] != "3" {
		t.Fatalf("fault %+v", f)
	}
}

// More operations than there are slots, in one frame: all are executed, never
// more at a time than the bound, and each is answered once.
func TestForwardIsBounded(t *testing.T) {
	const bound, total = 4, 200
	s, c := serve(t, func(o *Options) { o.MaxForwards, o.SendBytes = bound, 64 })
	var mu sync.Mutex
	var held []func()
	running, most := 0, 0
	queued := make(chan struct{}, total)
	s.Serve(&fakeRouter{execute: func(_ context.Context, calls []*router.Call, done func(*router.Call)) {
		mu.Lock()
		defer mu.Unlock()
		for _, call := range calls {
			if !call.Forwarded || call.Identity != "bob" {
				t.Errorf("call %+v", call)
			}
			running++
			most = max(most, running)
			call.Result = &api.PipelineResult{Id: call.Op.Id, Status: &api.Status{Message: fmt.Sprint("m", call.Op.Id)}}
			held = append(held, func() { done(call) })
			queued <- struct{}{}
		}
	}}, fakeNode{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := c.Forward(ctx)
	if err != nil {
		t.Fatal(err)
	}
	frame := &api.ForwardFrame{Identity: "bob"}
	for i := range total {
		frame.Ops = append(frame.Ops, &api.PipelineOp{Id: uint64(i + 1)})
	}
	if err := stream.Send(frame); err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		for range total {
			<-queued
			mu.Lock()
			finish := held[0]
			held = held[1:]
			running--
			mu.Unlock()
			finish()
		}
	})
	seen := make(map[uint64]bool)
	for len(seen) < total {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range resp.Results {
			if seen[res.Id] || res.Status.Message != fmt.Sprint("m", res.Id) {
				t.Fatalf("result %v", res)
			}
			seen[res.Id] = true
		}
	}
	answering.Wait()
	if most > bound {
		t.Fatalf("%d operations at a time, the bound is %d", most, bound)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Fatal("stream goes on after its end")
	}
}

// A peer that goes away in the middle leaves nothing behind: the handler ends
// once what it started has ended.
func TestForwardEndsWithItsPeer(t *testing.T) {
	s, c := serve(t)
	started, ended := make(chan struct{}), make(chan struct{})
	s.Serve(&fakeRouter{execute: func(ctx context.Context, calls []*router.Call, done func(*router.Call)) {
		close(started)
		context.AfterFunc(ctx, func() {
			for _, call := range calls {
				call.Result = &api.PipelineResult{Id: call.Op.Id}
				done(call)
			}
			close(ended)
		})
	}}, fakeNode{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.Forward(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&api.ForwardFrame{Ops: []*api.PipelineOp{{Id: 1}, {Id: 2}}}); err != nil {
		t.Fatal(err)
	}
	<-started
	cancel()
	<-ended
}

// An operation is for the group that its sender names; one that names none is
// left to this node's map.
func TestForwardNamesGroups(t *testing.T) {
	type routed struct {
		named bool
		group keyspace.GroupID
	}
	got := make(chan routed, 4)
	s, c := serve(t)
	s.Serve(&fakeRouter{execute: func(_ context.Context, calls []*router.Call, done func(*router.Call)) {
		for _, call := range calls {
			got <- routed{call.Routed, call.Group}
			call.Result = &api.PipelineResult{Id: call.Op.Id}
			done(call)
		}
	}}, fakeNode{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := c.Forward(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ops := []*api.PipelineOp{{Id: 1}, {Id: 2}}
	for _, groups := range [][]uint32{{7, 0}, nil} {
		if err := stream.Send(&api.ForwardFrame{Ops: ops, Groups: groups}); err != nil {
			t.Fatal(err)
		}
		for i := range ops {
			want := routed{named: groups != nil}
			if groups != nil {
				want.group = keyspace.GroupID(groups[i])
			}
			if r := <-got; r != want {
				t.Errorf("groups %v, operation %d: %+v", groups, i, r)
			}
		}
	}
}
