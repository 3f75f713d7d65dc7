package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/keyspace"
	"kvstore/internal/server/servertest"
	"kvstore/internal/server/status"
	"kvstore/internal/wirebuf"
)

type fixture struct {
	backend *servertest.Backend
	service *Service
	server  *grpc.Server
	conn    *grpc.ClientConn
	client  api.KVStoreClient
}

func newFixture(t *testing.T, g guard.Options, o Options) *fixture {
	t.Helper()
	f := &fixture{backend: servertest.New()}
	o.Backend, o.Guard, o.Leases = f.backend, guard.New(g), f.backend.Leases()
	var err error
	if f.service, err = New(o); err != nil {
		t.Fatal(err)
	}
	f.server = grpc.NewServer(grpc.UnaryInterceptor(o.Guard.Unary()), grpc.StreamInterceptor(o.Guard.Stream()),
		grpc.ForceServerCodecV2(wirebuf.NewCodec()), grpc.MaxRecvMsgSize(20<<20), grpc.MaxSendMsgSize(20<<20))
	f.service.Register(f.server)
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l) }()
	f.conn, err = grpc.NewClient("passthrough:///kv", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(20<<20), grpc.MaxCallSendMsgSize(40<<20)))
	if err != nil {
		t.Fatal(err)
	}
	f.client = api.NewKVStoreClient(f.conn)
	t.Cleanup(func() {
		_ = f.conn.Close()
		f.server.Stop()
		_ = f.service.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestUnaryCalls(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	ctx := t.Context()
	put, err := f.client.Put(ctx, &api.PutRequest{Key: "k", Value: []byte("v"), Tags: map[string]string{"a": "b"}})
	if err != nil || put.Version != 1 {
		t.Fatalf("%v %v", put, err)
	}
	got, err := f.client.Get(ctx, &api.GetRequest{Key: "k"})
	if err != nil || string(got.Record.Value) != "v" || got.Record.Tags["a"] != "b" {
		t.Fatalf("%v %v", got, err)
	}
	if _, err := f.client.Get(ctx, &api.GetRequest{Key: "none"}); status.CodeOf(err) != fault.NotFound || grpcstatus.Code(err) != codes.NotFound {
		t.Errorf("missing key: %v", err)
	}
	puts, err := f.client.BatchPut(ctx, &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "a"}, {Key: "k", Condition: &api.Condition{MustNotExist: true}}}})
	if err != nil || puts.Results[0].Put.Version != 1 || puts.Results[1].Status.Code != "condition_failed" {
		t.Errorf("%v %v", puts, err)
	}
	gets, err := f.client.BatchGet(ctx, &api.BatchGetRequest{Keys: []string{"a", "none"}})
	if err != nil || gets.Results[0].Record.Key != "a" || gets.Results[1].Status.Code != "not_found" {
		t.Errorf("%v %v", gets, err)
	}
	dels, err := f.client.BatchDelete(ctx, &api.BatchDeleteRequest{Items: []*api.DeleteRequest{{Key: "a"}}})
	if err != nil || !dels.Results[0].Delete.Existed {
		t.Errorf("%v %v", dels, err)
	}
	del, err := f.client.Delete(ctx, &api.DeleteRequest{Key: "k"})
	if err != nil || !del.Existed {
		t.Errorf("%v %v", del, err)
	}
	if _, err := f.client.CreateNamespace(ctx, &api.CreateNamespaceRequest{Name: "n"}); err != nil {
		t.Error(err)
	}
	all, err := f.client.ListNamespaces(ctx, &api.ListNamespacesRequest{})
	if err != nil || len(all.Namespaces) != 2 {
		t.Errorf("%v %v", all, err)
	}
	if _, err := f.client.DescribeNamespace(ctx, &api.DescribeNamespaceRequest{Name: "n"}); err != nil {
		t.Error(err)
	}
	job, err := f.client.DeleteNamespace(ctx, &api.DeleteNamespaceRequest{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if j, err := f.client.DescribeJob(ctx, &api.DescribeJobRequest{Id: job.Id}); err != nil || j.State != "done" {
		t.Errorf("%v %v", j, err)
	}
	if s, err := f.client.Status(ctx, &api.StatusRequest{}); err != nil || !s.Ready {
		t.Errorf("%v %v", s, err)
	}
	if s, err := f.client.Topology(ctx, &api.TopologyRequest{}); err != nil || s.Epoch != 1 {
		t.Errorf("%v %v", s, err)
	}
	if d, err := f.client.Digest(ctx, &api.DigestRequest{}); err != nil || !d.Equal {
		t.Errorf("%v %v", d, err)
	}
}

// Every code reaches a client with its details and hints, unary and pipelined.
func TestEveryCodeReachesTheClient(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	stream, err := f.client.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range status.Codes() {
		want := fault.New(code, "wrong", "limit", 1).WithRetry(1)
		want.Leader = "n2"
		f.backend.Fail = func(context.Context, *api.PipelineOp) error { return want }
		_, err := f.client.Get(t.Context(), &api.GetRequest{Key: "k"})
		check := func(way string, err error) {
			got := status.Fault(err)
			if got.Code != code || got.Details["limit"] != "1" || got.Leader != "n2" || got.RetryAfter == 0 {
				t.Errorf("%s %s: %#v", way, code, got)
			}
		}
		check("unary", err)
		if err := stream.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 1, Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k"}}}}}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		check("pipeline", status.FromItem(resp.Results[0].Status))
	}
}

func TestHealth(t *testing.T) {
	f := newFixture(t, guard.Options{MaxConcurrent: 1}, Options{})
	h := healthpb.NewHealthClient(f.conn)
	for _, ready := range []bool{false, true} {
		f.service.SetReady(ready)
		for _, name := range []string{"", "kvstore.v1.KVStore"} {
			res, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || (res.Status == healthpb.HealthCheckResponse_SERVING) != ready {
				t.Errorf("%q ready %v: %v %v", name, ready, res, err)
			}
		}
	}
}

// S3.8, ASKS A3-A5: large values by unary call and by stream; one byte more is
// refused with limit and actual size.
func TestLargeValues(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	largest := []byte(strings.Repeat("v", keyspace.MaxValueBytes))
	if _, err := f.client.Put(t.Context(), &api.PutRequest{Key: "k", Value: largest}); err != nil {
		t.Fatal(err)
	}
	if err := putStream(t.Context(), f.client, "s", largest, uint64(len(largest))); err != nil {
		t.Fatal(err)
	}
	value, err := getStream(t.Context(), f.client, "s")
	if err != nil || len(value) != len(largest) {
		t.Fatalf("%d bytes, %v", len(value), err)
	}
	larger := append(largest, 'v')
	_, unary := f.client.Put(t.Context(), &api.PutRequest{Key: "k", Value: larger})
	for way, err := range map[string]error{
		"unary": unary, "announced": putStream(t.Context(), f.client, "s", larger, uint64(len(larger))),
		"counted": putStream(t.Context(), f.client, "s", larger, 0),
	} {
		got := status.Fault(err)
		if got == nil || got.Code != fault.ValueTooLarge || got.Details["limit_bytes"] != "16777216" || got.Details["actual_bytes"] == "" {
			t.Errorf("%s: %v", way, err)
		}
	}
	_, err = f.client.Put(t.Context(), &api.PutRequest{Key: "k", Value: make([]byte, 21<<20)})
	if got := status.Fault(err); got.Code != fault.MessageTooLarge || got.Details["limit"] != "20971520" {
		t.Errorf("beyond the message limit: %v", err)
	}
}

func TestPutStreamRefusals(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	for name, err := range map[string]error{
		"too short": putStream(t.Context(), f.client, "s", []byte("abc"), 4),
		"too long":  putStream(t.Context(), f.client, "s", []byte("abc"), 2),
		"no key":    putStream(t.Context(), f.client, "", []byte("abc"), 3),
		"no head":   putStream(t.Context(), f.client, "\x00none", nil, 0),
	} {
		if c := grpcstatus.Code(err); c != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := getStream(t.Context(), f.client, "none"); status.CodeOf(err) != fault.NotFound {
		t.Errorf("missing key: %v", err)
	}
}

// putStream sends value in parts; the key "\x00none" leaves the request out.
func putStream(ctx context.Context, c api.KVStoreClient, key string, value []byte, size uint64) error {
	s, err := c.PutStream(ctx)
	if err != nil {
		return err
	}
	first := &api.PutChunk{Request: &api.PutRequest{Key: key}, Size: size}
	if key == "\x00none" {
		first.Request = nil
	}
	err = s.Send(first)
	for len(value) > 0 && err == nil {
		n := min(len(value), 1<<20)
		err = s.Send(&api.PutChunk{Data: value[:n]})
		value = value[n:]
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}

func getStream(ctx context.Context, c api.KVStoreClient, key string) ([]byte, error) {
	s, err := c.GetStream(ctx, &api.GetRequest{Key: key})
	if err != nil {
		return nil, err
	}
	var value []byte
	for {
		part, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return value, nil
		}
		if err != nil {
			return nil, err
		}
		value = append(value, part.Data...)
	}
}

func TestListStreamSendsAllPages(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	for i := range 25 {
		if _, err := f.client.Put(t.Context(), &api.PutRequest{Key: fmt.Sprintf("k%02d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := f.client.ListStream(t.Context(), &api.ListRequest{Prefix: "k", Limit: 10, KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for {
		page, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Records))
	}
	if fmt.Sprint(sizes) != "[10 10 5]" {
		t.Errorf("pages %v", sizes)
	}
}
