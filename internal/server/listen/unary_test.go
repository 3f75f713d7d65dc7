package listen

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/router"
	"kvstore/internal/server/rpc"
)

// constant answers every operation with the same result.
type constant struct {
	rpc.Backend
	result *api.PipelineResult
}

func (b *constant) Do(_ context.Context, calls ...*router.Call) {
	for _, c := range calls {
		c.Result = b.result
	}
}

// wire is an HTTP/2 client that repeats one unary request. It allocates next
// to nothing, so that what is counted is the server's.
type wire struct {
	net.Conn
	framer  *http2.Framer
	request []byte // HEADERS and DATA; the stream id is filled in
	data    int    // offset of the DATA frame in request
	stream  uint32
}

func dialWire(t testing.TB, addr, method string, m proto.Message) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	w := &wire{Conn: c, framer: http2.NewFramer(c, c), stream: 1}
	w.framer.SetReuseFrames()
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := w.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := w.framer.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	w.encode(t, enc, &block, method, m)
	w.call(t) // fills the server's header table: later blocks are indexes
	w.encode(t, enc, &block, method, m)
	w.call(t)
	return w
}

func (w *wire) encode(t testing.TB, enc *hpack.Encoder, block *bytes.Buffer, method string, m proto.Message) {
	t.Helper()
	block.Reset()
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"user-agent", "grpc-go/1.85.0"}, {"te", "trailers"},
		{"grpc-timeout", "4999999u"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	w.data = out.Len()
	prefixed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	if err := f.WriteData(1, true, prefixed); err != nil {
		t.Fatal(err)
	}
	w.request = out.Bytes()
}

// send begins a request.
func (w *wire) send(t testing.TB) {
	binary.BigEndian.PutUint32(w.request[5:], w.stream)
	binary.BigEndian.PutUint32(w.request[w.data+5:], w.stream)
	w.stream += 2
	if _, err := w.Write(w.request); err != nil {
		t.Fatal(err)
	}
}

// receive waits for the end of one answer.
func (w *wire) receive(t testing.TB) {
	for {
		f, err := w.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return
			}
		case *http2.PingFrame:
			if err := w.framer.WritePing(true, f.Data); err != nil {
				t.Fatal(err)
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatal(f)
		}
	}
}

func (w *wire) call(t testing.TB) {
	w.send(t)
	w.receive(t)
}

// unaryCall returns a connection to a server of its own whose requests are
// answered at once.
func unaryCall(t testing.TB, method string, m proto.Message, result *api.PipelineResult) *wire {
	t.Helper()
	g := guard.New(guard.Options{})
	service, err := rpc.New(rpc.Options{Backend: &constant{result: result}, Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	return dialWire(t, mustServe(t, Options{Guard: g, Register: service.Register}), method, m)
}

// mustServe serves a port of gRPC until the test ends and returns its address.
func mustServe(t testing.TB, o Options) (addr string) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func unaryGet(t testing.TB) *wire {
	return unaryCall(t, api.KVStore_Get_FullMethodName, &api.GetRequest{Key: "0123456789abcdef"},
		&api.PipelineResult{Result: &api.PipelineResult_Get{Get: &api.GetResponse{
			Record:       &api.Record{Key: "0123456789abcdef", Value: make([]byte, 256), Version: 1, Revision: 1 << 60, CreatedAtMs: 1 << 40, Size: 256},
			ReadRevision: 1 << 60,
		}}})
}

func unaryPut(t testing.TB) *wire {
	return unaryCall(t, api.KVStore_Put_FullMethodName, &api.PutRequest{Key: "0123456789abcdef", Value: make([]byte, 256)},
		&api.PipelineResult{Result: &api.PipelineResult_Put{Put: &api.PutResponse{
			Version: 1, Revision: 1 << 60, CreatedAtMs: 1 << 40, UpdatedAtMs: 1 << 40, Checksum: 1 << 31,
		}}})
}

// BenchmarkUnary keeps 16 requests in flight on one connection; everything
// below the service costs nothing.
func BenchmarkUnary(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *wire{"get": unaryGet, "put": unaryPut} {
		b.Run(name, func(b *testing.B) {
			w := open(b)
			b.ReportAllocs()
			b.ResetTimer()
			const inflight = 16
			for range min(inflight, b.N) {
				w.send(b)
			}
			for n := range b.N {
				w.receive(b)
				if n+inflight < b.N {
					w.send(b)
				}
			}
		})
	}
}

// TestUnaryAllocations bounds what a unary call allocates between the socket and
// the router; about 50 of them are gRPC's own.
func TestUnaryAllocations(t *testing.T) {
	for name, w := range map[string]*wire{"get": unaryGet(t), "put": unaryPut(t)} {
		if n := testing.AllocsPerRun(500, func() { w.call(t) }); n > 70 {
			t.Errorf("%s: %v allocations, want at most 70", name, n)
		}
	}
}
