package node

import (
	"testing"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/transport"
)

// A node takes operations of another on a link, with TLS and without, and answers
// them by its router.
func TestTakesForwardedOperationsOnLinks(t *testing.T) {
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true} {
		c := newTestCluster(t, 1, secure)
		c.startAll()
		n := c.nodes[0]
		o := transport.Options{Node: "other", Clock: system.Clock()}
		if n.tls != nil {
			o.Credentials, o.TLS = n.tls.ClientCredentials(), n.tls.Client
		}
		other, err := transport.New(o)
		if err != nil {
			t.Fatal(err)
		}
		other.SetCluster(n.cluster.ID)
		if err := other.SetPeer(n.id, c.configs[0].Listen.Peer); err != nil {
			t.Fatal(err)
		}
		stream, err := other.Forward(t.Context(), n.id)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := stream.(grpc.ClientStream); ok {
			t.Errorf("%s: by gRPC", name)
		}
		put := &api.PipelineOp_Put{Put: &api.PutRequest{Key: "k", Value: []byte("v")}}
		if err := stream.Send(&api.ForwardFrame{Ops: []*api.PipelineOp{{Id: 7, Op: put}}}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil || answer.Results[0].Id != 7 || answer.Results[0].GetPut().GetVersion() != 1 {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		c.close(0)
	}
}
