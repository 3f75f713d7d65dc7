package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"kvstore/internal/bench"
)

// etcd drives etcd's own client: connection i goes to one endpoint, round the
// endpoints from the leader on, and client i uses connection i modulo their
// number, as in etcd's benchmark tool. Starting at the leader spares a single
// connection the forwarding of every proposal.
type etcd struct {
	conns   []*clientv3.Client
	timeout time.Duration
}

// openEtcd connects to --endpoints. --mode and --read have no meaning here:
// every operation is one gRPC call, and reads are linearizable.
func openEtcd(ctx context.Context, c *bench.Config) (bench.Driver, error) {
	endpoints := c.Target.Endpoints
	if len(endpoints) == 0 {
		return nil, errors.New("--endpoints: name every etcd node")
	}
	c.Endpoints, c.Read, c.Mode = endpoints, "linearizable", bench.ModeUnary
	first, err := leader(ctx, endpoints, c.Target.Timeout)
	if err != nil {
		return nil, err
	}
	e := &etcd{timeout: c.Target.Timeout}
	for i := range c.Connections {
		conn, err := connect(endpoints[(first+i)%len(endpoints)], c.Target.Timeout)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.conns = append(e.conns, conn)
	}
	return e, nil
}

func connect(endpoint string, timeout time.Duration) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: timeout, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", endpoint, err)
	}
	return c, nil
}

// leader returns which endpoint leads.
func leader(ctx context.Context, endpoints []string, timeout time.Duration) (at int, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := connect(endpoints[0], timeout)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for i, e := range endpoints {
		st, err := c.Status(ctx, e)
		if err != nil {
			return 0, fmt.Errorf("etcd %s: %w", e, err)
		}
		if st.Leader == st.Header.GetMemberId() {
			return i, nil
		}
	}
	return 0, fmt.Errorf("etcd: none of %v leads", endpoints)
}

func (e *etcd) Client(i int) bench.Client {
	return &etcdClient{e.conns[i%len(e.conns)].KV, e.timeout}
}

func (e *etcd) CodeOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return "grpc_" + strings.ToLower(status.Code(err).String())
}

func (e *etcd) Close() error {
	var errs []error
	for _, c := range e.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// etcdClient is one client on one connection.
type etcdClient struct {
	kv      clientv3.KV
	timeout time.Duration
}

var (
	errMissing = errors.New("no such key")
	errTxn     = errors.New("transaction did not succeed")
)

func (c *etcdClient) Put(ctx context.Context, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.kv.Put(ctx, key, string(value))
	return err
}

func (c *etcdClient) Get(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := c.kv.Get(ctx, key)
	if err == nil && len(res.Kvs) == 0 {
		err = errMissing
	}
	return err
}

func (c *etcdClient) List(ctx context.Context, prefix, start string, limit int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := c.kv.Get(ctx, max(prefix, start), clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return 0, err
	}
	return len(res.Kvs), nil
}

func (c *etcdClient) BatchPut(ctx context.Context, keys []string, values [][]byte) error {
	ops := make([]clientv3.Op, len(keys))
	for i, k := range keys {
		ops[i] = clientv3.OpPut(k, string(values[i]))
	}
	_, err := c.commit(ctx, ops)
	return err
}

func (c *etcdClient) BatchGet(ctx context.Context, keys []string) error {
	ops := make([]clientv3.Op, len(keys))
	for i, k := range keys {
		ops[i] = clientv3.OpGet(k)
	}
	res, err := c.commit(ctx, ops)
	if err != nil {
		return err
	}
	for _, r := range res.Responses {
		if len(r.GetResponseRange().GetKvs()) == 0 {
			return errMissing
		}
	}
	return nil
}

func (c *etcdClient) commit(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := c.kv.Txn(ctx).Then(ops...).Commit()
	if err == nil && !res.Succeeded {
		err = errTxn
	}
	return res, err
}
