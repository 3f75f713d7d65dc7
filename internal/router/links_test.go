package router

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// realPeer is a node with a real transport, whose Forward is served by a function.
type realPeer struct {
	*transport.Transport
	addr string
	stop func()
}

// forwardService is Forward by gRPC.
type forwardService struct {
	api.UnimplementedPeerServer
	serve transport.ServeForward
}

func (s forwardService) Forward(stream api.Peer_ForwardServer) error { return s.serve(stream) }

// mustPeer starts a node that takes links, or forwarded operations by gRPC only.
func mustPeer(t *testing.T, id keyspace.NodeID, links bool, serve transport.ServeForward) *realPeer {
	t.Helper()
	tr, err := transport.New(transport.Options{Node: id, Clock: system.Clock()})
	if err != nil {
		t.Fatal(err)
	}
	tr.SetCluster("cluster")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &realPeer{Transport: tr, addr: l.Addr().String()}
	creds := insecure.NewCredentials()
	if links {
		tr.TakeForwards(serve)
		creds = tr.ServerCredentials(nil)
	}
	s := grpc.NewServer(append(tr.ServerOptions(), grpc.Creds(creds))...)
	api.RegisterPeerServer(s, forwardService{serve: serve})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	p.stop = func() {
		_ = tr.Close()
		s.Stop()
		<-served
	}
	t.Cleanup(p.stop)
	return p
}

// A peer that dies with operations in flight, over real connections: a write ends
// with an unknown outcome, a read goes to another node.
func TestPeerDiesOnEitherCarrier(t *testing.T) {
	for name, links := range map[string]bool{"links": true, "gRPC": false} {
		taken := make(chan struct{}, 2)
		b := mustPeer(t, "b", links, func(stream api.Peer_ForwardServer) error {
			for {
				f, err := stream.Recv()
				if err != nil {
					return err
				}
				for range f.GetOps() {
					taken <- struct{}{}
				}
			}
		})
		c := mustPeer(t, "c", links, func(stream api.Peer_ForwardServer) error {
			for {
				f, err := stream.Recv()
				if err != nil {
					return err
				}
				resp := &api.PipelineResponse{}
				for _, op := range f.GetOps() {
					resp.Results = append(resp.Results, &api.PipelineResult{Id: op.GetId(), Result: &api.PipelineResult_Get{Get: &api.GetResponse{}}})
				}
				if err := stream.Send(resp); err != nil {
					return err
				}
			}
		})
		a := mustPeer(t, "a", links, nil)
		for _, p := range []struct {
			id   keyspace.NodeID
			addr string
		}{{"b", b.addr}, {"c", c.addr}} {
			if err := a.SetPeer(p.id, p.addr); err != nil {
				t.Fatal(err)
			}
		}
		f := newFixture(t, func(o *Options) { o.Peers, o.Clock = a.Transport, system.Clock() })
		f.remote("b", nil)
		write, read := putCall("", "k", "v"), getCall("", "k")
		done := make(chan *Call, 2)
		f.Execute(t.Context(), []*Call{write, read}, func(c *Call) { done <- c })
		<-taken
		<-taken
		b.stop()
		<-done
		<-done
		if got := fault.CodeOf(write.Err); got != fault.UnknownOutcome || read.Err != nil {
			t.Errorf("%s: the write ended with %v, the read with %v", name, write.Err, read.Err)
		}
	}
}
