package bench

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// maxMessage is the store's limit for one gRPC message.
const maxMessage = 20 << 20

// unary drives plain gRPC stubs: connections go round over the endpoints that
// were named, clients over the connections.
type unary struct {
	conns     []*grpc.ClientConn
	stubs     []api.KVStoreClient
	namespace string
	timeout   time.Duration
	token     string
}

func openUnary(cfg client.Config, connections int) (*unary, error) {
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	if cfg.Token != "" && cfg.TLS == nil && !cfg.PlaintextToken {
		return nil, errors.New("a token needs TLS or --plaintext-token")
	}
	u := &unary{namespace: cfg.Namespace, timeout: cfg.Timeout, token: cfg.Token}
	for i := range connections {
		conn, err := grpc.NewClient(cfg.Endpoints[i%len(cfg.Endpoints)], grpc.WithTransportCredentials(creds),
			grpc.WithUserAgent("kvbench"),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
		if err != nil {
			return nil, errors.Join(err, u.Close())
		}
		u.conns = append(u.conns, conn)
		u.stubs = append(u.stubs, api.NewKVStoreClient(conn))
	}
	return u, nil
}

func (u *unary) Client(i int) Client { return &unaryClient{u, u.stubs[i%len(u.stubs)]} }

// MaxBatch is that of the SDK's driver.
func (u *unary) MaxBatch() int { return largeBatch }

// GroupOf asks for the slot map.
func (u *unary) GroupOf(ctx context.Context) (func(string) uint32, error) {
	ctx, cancel := (&unaryClient{u, u.stubs[0]}).context(ctx)
	defer cancel()
	t, err := u.stubs[0].Topology(ctx, &api.TopologyRequest{})
	if err != nil {
		return nil, err
	}
	return topologyGroupOf(t, u.namespace)
}

func (u *unary) Close() error {
	var errs []error
	for _, c := range u.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// itemError is the failure of one item of a batch.
type itemError struct{ *api.Status }

func (e itemError) Error() string { return e.GetCode() + ": " + e.GetMessage() }

// CodeOf takes the store's code where there is one, else gRPC's.
func (u *unary) CodeOf(err error) string {
	var item itemError
	if errors.As(err, &item) {
		return item.GetCode()
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if d, ok := d.(*api.ErrorDetail); ok {
			return d.GetCode()
		}
	}
	return "grpc_" + strings.ToLower(st.Code().String())
}

// unaryClient is one client on one connection.
type unaryClient struct {
	*unary
	stub api.KVStoreClient
}

func (c *unaryClient) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	return context.WithTimeout(ctx, c.timeout)
}

func (c *unaryClient) Put(ctx context.Context, key string, value []byte) error {
	ctx, cancel := c.context(ctx)
	defer cancel()
	_, err := c.stub.Put(ctx, &api.PutRequest{Namespace: c.namespace, Key: key, Value: value})
	return err
}

func (c *unaryClient) Get(ctx context.Context, key string) error {
	ctx, cancel := c.context(ctx)
	defer cancel()
	_, err := c.stub.Get(ctx, &api.GetRequest{Namespace: c.namespace, Key: key})
	return err
}

func (c *unaryClient) List(ctx context.Context, prefix, start string, limit int) (int, error) {
	ctx, cancel := c.context(ctx)
	defer cancel()
	res, err := c.stub.List(ctx, &api.ListRequest{Namespace: c.namespace, Prefix: prefix, Start: start, Limit: uint32(limit)})
	return len(res.GetRecords()), err
}

func (c *unaryClient) BatchPut(ctx context.Context, keys []string, values [][]byte) error {
	return c.batchPut(ctx, keys, values, false)
}

func (c *unaryClient) AtomicPut(ctx context.Context, keys []string, values [][]byte) error {
	return c.batchPut(ctx, keys, values, true)
}

func (c *unaryClient) batchPut(ctx context.Context, keys []string, values [][]byte, atomic bool) error {
	ctx, cancel := c.context(ctx)
	defer cancel()
	req := &api.BatchPutRequest{Namespace: c.namespace, Items: make([]*api.PutRequest, len(keys)), Atomic: atomic}
	for i, k := range keys {
		req.Items[i] = &api.PutRequest{Key: k, Value: values[i]}
	}
	res, err := c.stub.BatchPut(ctx, req)
	if err != nil {
		return err
	}
	return firstFailure(res.GetResults())
}

func (c *unaryClient) Transaction(ctx context.Context, keys []string, values [][]byte) error {
	ctx, cancel := c.context(ctx)
	defer cancel()
	req := &api.TransactionRequest{Namespace: c.namespace, Then: make([]*api.TransactionOp, len(keys))}
	for i, k := range keys {
		req.Then[i] = &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: k, Value: values[i]}}}
	}
	res, err := c.stub.Transaction(ctx, req)
	if err != nil {
		return err
	}
	return firstFailure(res.GetResults())
}

func (c *unaryClient) BatchGet(ctx context.Context, keys []string) error {
	ctx, cancel := c.context(ctx)
	defer cancel()
	res, err := c.stub.BatchGet(ctx, &api.BatchGetRequest{Namespace: c.namespace, Keys: keys})
	if err != nil {
		return err
	}
	return firstFailure(res.GetResults())
}

// firstFailure is that of a batch's items, nil when all succeeded.
func firstFailure[R interface{ GetStatus() *api.Status }](results []R) error {
	for _, r := range results {
		if r.GetStatus().GetCode() != "" {
			return itemError{r.GetStatus()}
		}
	}
	return nil
}
