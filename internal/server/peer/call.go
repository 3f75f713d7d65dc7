package peer

import (
	"context"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
)

// method decodes a request, runs it and encodes the answer.
type method func(ctx context.Context, r Router, request []byte) ([]byte, error)

// methods are the requests that Call carries, by the name of their RPC.
func methods() map[string]method {
	return map[string]method{
		"List":                   run(Router.List),
		"Status":                 run(Router.Status),
		"Topology":               run(Router.Topology),
		"CreateNamespace":        run(Router.CreateNamespace),
		"ListNamespaces":         run(Router.ListNamespaces),
		"DescribeNamespace":      run(Router.DescribeNamespace),
		"DeleteNamespace":        run(Router.DeleteNamespace),
		"DescribeJob":            run(Router.DescribeJob),
		router.HistoryMethod:     run(Router.ServeHistory),
		router.GroupDigestMethod: run(Router.ServeDigest),
		router.RecoverNodeMethod: run(Router.ServeRecoverNode),
		router.RecoverStepMethod: run(Router.ServeRecoverStep),
		router.SlotStepMethod:    run(Router.ServeSlotStep),
		router.SlotStatusMethod:  run(Router.ServeSlotStatus),
		router.SlotExportMethod:  run(Router.ServeSlotExport),
		router.TxnLowWaterMethod: run(Router.ServeTxnLowWater),
	}
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

func run[Q any, P message[Q], A proto.Message](f func(Router, context.Context, P) (A, error)) method {
	return func(ctx context.Context, r Router, request []byte) ([]byte, error) {
		q := P(new(Q))
		if err := proto.Unmarshal(request, q); err != nil {
			return nil, fault.Wrap(fault.InvalidArgument, err, "request of a peer cannot be decoded")
		}
		a, err := f(r, ctx, q)
		if err != nil {
			return nil, err
		}
		b, err := proto.Marshal(a)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "answer to a peer cannot be encoded")
		}
		return b, nil
	}
}

// Call implements api.PeerServer. Errors of the request are part of the
// answer; the RPC itself fails only before the request was understood.
func (s *Server) Call(ctx context.Context, q *api.CallRequest) (*api.CallResponse, error) {
	p, err := s.parts.get()
	if err != nil {
		return nil, status.Error(err)
	}
	m, ok := s.method[q.Method]
	if !ok {
		return nil, status.Error(fault.New(fault.Unsupported, "peer calls an unknown method", "method", q.Method))
	}
	resp, err := m(router.WithIdentity(ctx, q.Identity), p.router, q.Request)
	if err != nil {
		return &api.CallResponse{Error: status.Detail(err), Message: status.Message(err)}, nil
	}
	return &api.CallResponse{Response: resp}, nil
}
