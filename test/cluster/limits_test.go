//go:build unix

package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/test/cluster/harness"
)

const maxValue = 16 << 20

// TestLimits (issue 2, ASKS A2-A5): what is too large, malformed or unknown
// gets a clear error from outside, and no node ends or restarts.
func TestLimits(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	pids := []int{c.PID(0), c.PID(1), c.PID(2)}
	for _, sub := range []struct {
		name string
		run  func(*testing.T, *harness.Cluster)
	}{
		{"sizes over REST", limitsREST},
		{"sizes over gRPC", limitsGRPC},
		{"malformed pipeline", malformedPipeline},
		{"garbage on every port", garbage},
		{"malformed peer messages", malformedPeer},
		{"expiry", expiry},
	} {
		t.Run(sub.name, func(t *testing.T) {
			sub.run(t, c)
			for i, n := range c.Nodes() {
				if n.PID != pids[i] || !harness.Alive(n.PID) {
					t.Errorf("%s has pid %d, had %d", n.Name, n.PID, pids[i])
				}
			}
		})
	}
	c.WaitReady()
	c.ExpectEqualDigests(3)
}

func limitsREST(t *testing.T, c *harness.Cluster) {
	big := make([]byte, maxValue+1)
	_, _ = rand.Read(big)
	longest := strings.Repeat("k", 1022) + "é"
	for _, tc := range []struct {
		name, key, query string
		value            []byte
		header           http.Header
		status           int
		code             string
		says             []string
	}{
		{name: "16 MB", key: "big", value: big[:maxValue], status: 201},
		{name: "16 MB and a byte", key: "bigger", value: big, status: 413, code: "value_too_large", says: []string{"16777216", "16777217"}},
		{name: "1,024-byte key", key: longest, value: []byte("v"), status: 201},
		{name: "1,025-byte key", key: longest + "k", value: []byte("v"), status: 400, code: "key_too_large", says: []string{"1024", "1025"}},
		{name: "invalid UTF-8", key: "\xff\xfe", value: []byte("v"), status: 400, code: "invalid_key"},
		{name: "bad checksum", key: "sum", value: []byte("v"), header: http.Header{"X-Kvstore-Checksum": {"00000001"}}, status: 400, code: "checksum_mismatch"},
		{name: "no checksum at all", key: "sum", value: []byte("v"), header: http.Header{"X-Kvstore-Checksum": {"xyz"}}, status: 400, code: "invalid_argument"},
		{name: "unknown namespace", key: "k", query: "?namespace=nowhere", value: []byte("v"), status: 404, code: "namespace_not_found", says: []string{"nowhere"}},
	} {
		for i, n := range c.Nodes() {
			url := c.URL(n, "/api/v1/keys/"+url.PathEscape(tc.key)+tc.query)
			code, body, err := c.Do(http.MethodPut, url, bytes.NewReader(tc.value), tc.header)
			want := tc.status
			if i > 0 && want == 201 {
				want = 204
			}
			if err != nil || code != want || (tc.code != "" && !strings.Contains(body, `"code":"`+tc.code+`"`)) {
				t.Errorf("%s on node %d: %d %.300s, %v, want %d %s", tc.name, i, code, body, err, want, tc.code)
			}
			for _, s := range tc.says {
				if !strings.Contains(body, s) {
					t.Errorf("%s: %.300s does not say %s", tc.name, body, s)
				}
			}
			if want >= 300 {
				continue
			}
			if code, got, err := c.Do(http.MethodGet, url, nil, nil); err != nil || code != 200 || got != string(tc.value) {
				t.Errorf("%s on node %d: read %d, %d bytes, %v", tc.name, i, code, len(got), err)
			}
		}
	}
}

func limitsGRPC(t *testing.T, c *harness.Cluster) {
	big := make([]byte, maxValue+1)
	_, _ = rand.Read(big)
	wrong := uint32(1)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for i, n := range c.Nodes() {
		port := n.GRPC
		if i == 2 {
			port = n.HTTP // gRPC on the HTTP port
		}
		kv := api.NewKVStoreClient(dial(t, port))
		key := fmt.Sprintf("grpc/%d", i)
		for _, tc := range []struct {
			name string
			req  *api.PutRequest
			code string
		}{
			{"16 MB", &api.PutRequest{Key: key, Value: big[:maxValue]}, ""},
			{"16 MB and a byte", &api.PutRequest{Key: key, Value: big}, "value_too_large"},
			{"1,024-byte key", &api.PutRequest{Key: strings.Repeat("g", 1024)}, ""},
			{"1,025-byte key", &api.PutRequest{Key: strings.Repeat("g", 1025)}, "key_too_large"},
			{"no key", &api.PutRequest{}, "invalid_key"},
			{"bad checksum", &api.PutRequest{Key: key, Checksum: &wrong}, "checksum_mismatch"},
			{"unknown namespace", &api.PutRequest{Key: key, Namespace: "nowhere"}, "namespace_not_found"},
		} {
			_, err := kv.Put(ctx, tc.req)
			if got := detail(err); got != tc.code {
				t.Errorf("%s at %s: %v, want %q", tc.name, port, err, tc.code)
			}
		}
		got, err := kv.Get(ctx, &api.GetRequest{Key: key}, grpc.MaxCallRecvMsgSize(20<<20))
		if err != nil || !bytes.Equal(got.GetRecord().GetValue(), big[:maxValue]) {
			t.Errorf("16 MB at %s: %d bytes, %v", port, len(got.GetRecord().GetValue()), err)
		}
		invalidUTF8(t, ctx, port)
	}
}

// invalidUTF8 sends what Go's protobuf refuses to make.
func invalidUTF8(t *testing.T, ctx context.Context, addr string) {
	t.Helper()
	request := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "\xff\xfe")
	var answer []byte
	err := dial(t, addr).Invoke(ctx, "/kvstore.v1.KVStore/Put", &request, &answer, grpc.ForceCodec(rawCodec{}))
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("invalid UTF-8 at %s: %v", addr, err)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "proto" }

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// detail is the code of an error's detail, "" for no error.
func detail(err error) string {
	if err == nil {
		return ""
	}
	for _, d := range status.Convert(err).Details() {
		if e, ok := d.(*api.ErrorDetail); ok {
			return e.GetCode()
		}
	}
	return "no detail"
}

// malformedPipeline: bad operations are answered one by one; bytes that are no
// message end the stream with an error, nothing else.
func malformedPipeline(t *testing.T, c *harness.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn := dial(t, c.Nodes()[1].GRPC)
	stream, err := api.NewKVStoreClient(conn).Pipeline(ctx)
	if err != nil {
		t.Fatal(err)
	}
	put := &api.PipelineOp_Put{Put: &api.PutRequest{Key: "pipeline", Value: []byte("v")}}
	ops := []*api.PipelineOp{
		{Id: 1, Op: put},
		{Id: 2}, // nothing to do
		{Id: 3, Op: &api.PipelineOp_Put{Put: &api.PutRequest{}}},
		{Id: 4, Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "pipeline", Namespace: "nowhere"}}},
		{Id: 5, Op: put, TimeoutMs: -1},
	}
	if err := stream.Send(&api.PipelineRequest{Ops: ops}); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&api.PipelineRequest{}); err != nil {
		t.Fatal(err)
	}
	answers := map[uint64]string{}
	for len(answers) < len(ops) {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %v: %v", answers, err)
		}
		for _, r := range resp.GetResults() {
			answers[r.GetId()] = r.GetStatus().GetCode()
		}
	}
	if answers[1] != "" || answers[2] != "invalid_argument" || answers[3] != "invalid_key" || answers[4] != "namespace_not_found" {
		t.Errorf("answers: %v", answers)
	}

	raw, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/kvstore.v1.KVStore/Pipeline", grpc.ForceCodec(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	junk := []byte("\xff\xff\xff\xffthis is no message")
	if err := raw.SendMsg(&junk); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	err = raw.RecvMsg(&answer)
	if code := status.Code(err); err == nil || errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.DeadlineExceeded {
		t.Errorf("bytes that are no message: %v", err)
	}
	if _, err := api.NewKVStoreClient(conn).Get(ctx, &api.GetRequest{Key: "pipeline"}); err != nil {
		t.Errorf("the connection after it: %v", err)
	}
}

// garbage sends bytes to every TCP port of every node.
func garbage(t *testing.T, c *harness.Cluster) {
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	texts := [][]byte{
		noise,
		[]byte("GET / HTTP/9.9\r\n\r\n"),
		[]byte("PUT /api/v1/keys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"),
		[]byte("PUT /api/v1/keys/%zz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv"),
		append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), noise...),
		{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00}, // the start of a TLS handshake
		{},
	}
	for _, n := range c.Nodes() {
		for _, addr := range []string{n.HTTP, n.GRPC, n.Peer, n.Metrics} {
			for _, text := range texts {
				conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
				if err != nil {
					t.Errorf("%s: %v", addr, err)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = conn.Write(text) // may be reset at any moment
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		}
	}
	everyNodeAnswers(t, c, 3)
}

// malformedPeer: whoever reaches the peer port with bytes that are no message
// gets an error.
func malformedPeer(t *testing.T, c *harness.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, n := range c.Nodes() {
		conn := dial(t, n.Peer)
		for _, m := range api.Peer_ServiceDesc.Methods {
			junk, answer := []byte("\xff\xff\xff\xffthis is no message"), []byte(nil)
			if err := conn.Invoke(ctx, "/kvstore.v1.Peer/"+m.MethodName, &junk, &answer, grpc.ForceCodec(rawCodec{})); err == nil {
				t.Errorf("%s takes bytes that are no message: %q", m.MethodName, answer)
			}
		}
		for _, s := range api.Peer_ServiceDesc.Streams {
			stream, err := conn.NewStream(ctx, &s, "/kvstore.v1.Peer/"+s.StreamName, grpc.ForceCodec(rawCodec{}))
			if err != nil {
				t.Fatal(err)
			}
			junk, answer := []byte("\xff\xff\xff\xffthis is no message"), []byte(nil)
			_ = stream.SendMsg(&junk) // the answer says what is wrong
			if err := stream.RecvMsg(&answer); err == nil || status.Code(err) == codes.DeadlineExceeded {
				t.Errorf("%s answers bytes that are no message with %q, %v", s.StreamName, answer, err)
			}
		}
	}
	everyNodeAnswers(t, c, 3)
}

// expiry: a key is gone when its time has come, on every path.
func expiry(t *testing.T, c *harness.Cluster) {
	ctx := t.Context()
	cl := c.Client(client.Config{Read: client.Any})
	const key = "expiry/k"
	written := time.Now() // at the earliest
	if _, err := cl.Put(ctx, key, []byte("v"), client.WithTTL(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(ctx, "expiry/stays", []byte("v"), client.WithTTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, func() error {
		if _, err := cl.Get(ctx, key); !errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("%s after %v", fmt.Sprint(err), time.Since(written))
		}
		return nil
	})
	if early := time.Since(written); early < 900*time.Millisecond {
		t.Errorf("a TTL of 1s ended after %v", early)
	}
	for _, n := range c.Nodes() {
		if code, body, err := c.Get(n, "/api/v1/keys/"+key); err != nil || code != http.StatusNotFound {
			t.Errorf("%s: %d %s %v", n.Name, code, body, err)
		}
	}
	page, err := cl.List(ctx, client.WithPrefix("expiry/"))
	if err != nil || len(page.Records) != 1 || page.Records[0].Key != "expiry/stays" {
		t.Errorf("list: %+v, %v", page.Records, err)
	}
	if res, err := cl.Put(ctx, key, []byte("again"), client.IfAbsent()); err != nil || res.Version != 1 {
		t.Errorf("an expired key is not absent: %+v, %v", res, err)
	}
}
