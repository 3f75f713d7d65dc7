package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/metrics"
	"kvstore/internal/server/rest"
	"kvstore/internal/server/rpc"
	"kvstore/internal/server/servertest"
)

// testTLS returns a server's and a client's configuration.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS13},
		&tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS13}
}

type fixture struct {
	addr    string
	service *rpc.Service
	server  *Server
	client  *tls.Config
	served  chan error
}

func start(t testing.TB, secure, shared bool, connections int) *fixture {
	t.Helper()
	f := &fixture{served: make(chan error, 1)}
	g, b := guard.New(guard.Options{}), servertest.New()
	var err error
	if f.service, err = rpc.New(rpc.Options{Backend: b, Guard: g}); err != nil {
		t.Fatal(err)
	}
	o := Options{Guard: g, Register: f.service.Register, MaxConnections: connections}
	if secure {
		o.TLS, f.client = testTLS(t)
	}
	if shared {
		o.HTTP, err = rest.New(rest.Options{Backend: b, Guard: g, Metrics: metrics.New("t").Handler(), Ready: func() (bool, string) { return true, "" }})
		if err != nil {
			t.Fatal(err)
		}
	}
	if f.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	go func() { f.served <- f.server.Serve(l) }()
	t.Cleanup(func() {
		f.server.Close()
		_ = f.service.Close()
	})
	return f
}

func (f *fixture) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if f.client != nil {
		creds = credentials.NewTLS(f.client.Clone())
	}
	conn, err := grpc.NewClient(f.addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// httpClient speaks HTTP/1.1, or HTTP/2 only (without TLS: by prior knowledge).
func (f *fixture) httpClient(two bool) (*http.Client, string) {
	tr := &http.Transport{TLSClientConfig: f.client, Protocols: new(http.Protocols), DisableKeepAlives: !two}
	scheme := "http"
	switch {
	case f.client != nil && two:
		tr.Protocols.SetHTTP2(true)
	case two:
		tr.Protocols.SetUnencryptedHTTP2(true)
	default:
		tr.Protocols.SetHTTP1(true)
	}
	if f.client != nil {
		scheme = "https"
		tr.TLSClientConfig = f.client.Clone()
	}
	return &http.Client{Transport: tr}, scheme + "://" + f.addr
}

// The shared port speaks HTTP/1.1, HTTP/2 and gRPC, with and without TLS; what
// one writes the others read.
func TestSharedPort(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			f := start(t, secure, true, 0)
			kv := api.NewKVStoreClient(f.dial(t))
			if _, err := kv.Put(t.Context(), &api.PutRequest{Key: "k", Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			for _, two := range []bool{false, true} {
				c, base := f.httpClient(two)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/keys/k", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if string(body) != "v" || (res.ProtoMajor == 2) != two {
					t.Errorf("%s over %s", body, res.Proto)
				}
				c.CloseIdleConnections()
			}
			pipelineOnce(t, kv)
		})
	}
}

func pipelineOnce(t *testing.T, kv api.KVStoreClient) {
	t.Helper()
	s, err := kv.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(3) {
		if err := s.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: id, Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k"}}}}}); err != nil {
			t.Fatal(err)
		}
		if resp, err := s.Recv(); err != nil || resp.Results[0].Id != id {
			t.Fatalf("%v %v", resp, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != io.EOF { //nolint:errorlint // gRPC returns the bare sentinel
		t.Errorf("end: %v", err)
	}
}

func TestPortForGRPCAlone(t *testing.T) {
	for _, secure := range []bool{false, true} {
		f := start(t, secure, false, 0)
		kv := api.NewKVStoreClient(f.dial(t))
		if _, err := kv.Put(t.Context(), &api.PutRequest{Key: "k"}); err != nil {
			t.Fatalf("tls=%v: %v", secure, err)
		}
		pipelineOnce(t, kv)
	}
}

// An open Pipeline does not keep a drained server from stopping.
func TestShutdown(t *testing.T) {
	for _, shared := range []bool{false, true} {
		f := start(t, false, shared, 0)
		s, err := api.NewKVStoreClient(f.dial(t)).Pipeline(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 1, Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k"}}}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		f.service.Drain()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := f.server.Shutdown(ctx); err != nil {
			t.Errorf("shared=%v: %v", shared, err)
		}
		cancel()
		if err := <-f.served; err != nil {
			t.Errorf("shared=%v: Serve: %v", shared, err)
		}
	}
}

// A connection beyond the bound waits until another one is closed.
func TestMaxConnections(t *testing.T) {
	f := start(t, false, true, 1)
	first, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	request := "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	answer := func(c net.Conn) { // blocks until the server answers
		if _, err := io.WriteString(c, request); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	answer(first)
	second, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	_ = second.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := io.WriteString(second, request); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("answered beyond the bound")
	}
	_ = second.SetReadDeadline(time.Time{})
	_ = first.Close()
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// BenchmarkPipeline shows what the shared port costs beside gRPC's own
// transport.
func BenchmarkPipeline(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for _, perFrame := range []int{1, 100} {
			b.Run(fmt.Sprintf("shared=%v/frame=%d", shared, perFrame), func(b *testing.B) {
				s, err := api.NewKVStoreClient(start(b, false, shared, 0).dial(b)).Pipeline(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				req := &api.PipelineRequest{}
				for i := range perFrame {
					put := &api.PutRequest{Key: fmt.Sprint("k", i), Value: make([]byte, 100)}
					req.Ops = append(req.Ops, &api.PipelineOp{Id: uint64(i), Op: &api.PipelineOp_Put{Put: put}})
				}
				for n := 0; n < b.N; n += perFrame {
					if err := s.Send(req); err != nil {
						b.Fatal(err)
					}
					for got := 0; got < perFrame; {
						resp, err := s.Recv()
						if err != nil {
							b.Fatal(err)
						}
						got += len(resp.Results)
					}
				}
			})
		}
	}
}
