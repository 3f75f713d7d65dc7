package client

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/wirebuf"
)

// nullServer answers every operation with the same bytes and does no work of
// its own, so that benchmarks show what the client costs.
type nullServer struct {
	topology []byte
	// answers by the field of the operation in PipelineOp; for batches the
	// answer of an item.
	answers map[protowire.Number][]byte
}

// itemsField is where a batch has its items.
const itemsField = 2

// startNullNodes starts n nodes that lead 8 groups in turn.
func startNullNodes(tb testing.TB, n, valueBytes int) []string {
	tb.Helper()
	s := &nullServer{answers: nullAnswers(tb, valueBytes)}
	topology := &api.TopologyResponse{Epoch: 1, ClusterId: "null", Namespaces: map[string]uint32{"default": 1}}
	var addrs []string
	var replicas []*api.ReplicaInfo
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		srv := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(s.handle),
			grpc.InitialWindowSize(streamWindowBytes), grpc.InitialConnWindowSize(connWindowBytes))
		served := make(chan struct{})
		go func() {
			defer close(served)
			if err := srv.Serve(l); err != nil {
				tb.Error(err)
			}
		}()
		tb.Cleanup(func() { srv.Stop(); <-served })
		addrs = append(addrs, l.Addr().String())
		topology.Nodes = append(topology.Nodes, &api.NodeInfo{Id: nodeName(i), Grpc: l.Addr().String()})
		replicas = append(replicas, &api.ReplicaInfo{NodeId: nodeName(i)})
	}
	for g := range uint32(8) {
		topology.Groups = append(topology.Groups, &api.GroupInfo{Group: g + 1, LeaderNode: nodeName(int(g) % n), Replicas: replicas})
	}
	for i := range uint32(4096) {
		topology.SlotGroups = append(topology.SlotGroups, 1+i/512)
	}
	s.topology = mustMarshal(tb, topology)
	return addrs
}

func nodeName(i int) string { return string(rune('a' + i)) }

func mustMarshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func nullAnswers(tb testing.TB, valueBytes int) map[protowire.Number][]byte {
	record := &api.Record{
		Key: "key", Value: make([]byte, valueBytes), CreatedAtMs: 1_800_000_000_000, UpdatedAtMs: 1_800_000_000_000,
		Version: 7, Revision: 1_800_000_000_000 << 16, Size: uint64(valueBytes),
	}
	return map[protowire.Number][]byte{
		fieldOpPut: mustMarshal(tb, &api.PipelineResult{Result: &api.PipelineResult_Put{Put: &api.PutResponse{
			Version: 7, Revision: 1_800_000_000_000 << 16, CreatedAtMs: 1_800_000_000_000, UpdatedAtMs: 1_800_000_000_000, Checksum: 12345678,
		}}}),
		fieldOpGet: mustMarshal(tb, &api.PipelineResult{Result: &api.PipelineResult_Get{Get: &api.GetResponse{
			Record: record, ReadRevision: 1_800_000_000_000 << 16,
		}}}),
		fieldOpBatchPut: mustMarshal(tb, &api.BatchPutResponse{Results: []*api.BatchPutResult{{Put: &api.PutResponse{
			Version: 7, Revision: 1_800_000_000_000 << 16, CreatedAtMs: 1_800_000_000_000, UpdatedAtMs: 1_800_000_000_000, Checksum: 12345678,
		}}}}),
		fieldOpBatchGet: mustMarshal(tb, &api.BatchGetResponse{Results: []*api.BatchGetResult{{Record: record}}}),
	}
}

func (s *nullServer) handle(_ any, stream grpc.ServerStream) error {
	if method, _ := grpc.MethodFromServerStream(stream); method == api.KVStore_Topology_FullMethodName {
		b := append([]byte(nil), s.topology...)
		return stream.SendMsg(&b)
	}
	for {
		var f frame
		if err := stream.RecvMsg(&f); err != nil {
			return nil // the client went away
		}
		in := f.buf.ReadOnlyData()
		buf := wirebuf.Pool.Get(len(in) + s.answerBytes(in))
		out := s.answer((*buf)[:0], in)
		*buf = out
		f.buf.Free()
		if err := stream.SendMsg(buf); err != nil {
			return err
		}
	}
}

// answerBytes is a bound on the size of the answers to a frame.
func (s *nullServer) answerBytes(in []byte) (n int) {
	for len(in) > 0 {
		f, rest, _ := nextField(in)
		for op := f.bytes; len(op) > 0; {
			var of field
			of, op, _ = nextField(op)
			n += max(1, batchItems(of))*len(s.answers[of.number]) + 16
		}
		in = rest
	}
	return n
}

func batchItems(op field) (n int) {
	if op.number != fieldOpBatchPut && op.number != fieldOpBatchGet {
		return 0
	}
	return countFields(op.bytes, itemsField)
}

func (s *nullServer) answer(out, in []byte) []byte {
	for len(in) > 0 {
		f, rest, _ := nextField(in)
		in = rest
		id, _ := resultID(f.bytes)
		var mark int
		out, mark = beginMessage(out, fieldFrameOps)
		out = appendUint(out, fieldOpID, id)
		for op := f.bytes; len(op) > 0; {
			var of field
			of, op, _ = nextField(op)
			if of.number != fieldOpBatchPut && of.number != fieldOpBatchGet {
				out = append(out, s.answers[of.number]...)
				continue
			}
			var batch int
			out, batch = beginMessage(out, of.number+1)
			for range batchItems(of) {
				out = append(out, s.answers[of.number]...)
			}
			out = endMessage(out, batch)
		}
		out = endMessage(out, mark)
	}
	return out
}
