package listen

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"kvstore/internal/guard"
	"kvstore/internal/pipelink"
)

// echoing serves links that say back what they hear, on cheap sockets.
func echoing(t *testing.T) ServeLink {
	return func(_ context.Context, conn net.Conn, _ credentials.AuthInfo, _ int) {
		raw := conn
		if secure, ok := conn.(*tls.Conn); ok {
			raw = secure.NetConn()
		}
		if socket := bare(raw); socket == raw || pipelink.Direct(socket) != socket {
			t.Errorf("the socket of a %T is a %T", conn, socket)
		}
		_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) // until the client ends it
		_ = conn.Close()
	}
}

// mustEcho starts a port for gRPC alone that takes one connection at a time, and
// serves links as echoing does; client is nil without TLS.
func mustEcho(t *testing.T, secure bool) (addr string, client *tls.Config) {
	t.Helper()
	o := Options{Guard: guard.New(guard.Options{}), Register: func(*grpc.Server) {}, MaxConnections: 1, Links: echoing(t)}
	if secure {
		o.TLS, client = testTLS(t)
		client.NextProtos = []string{pipelink.Protocol}
	}
	return mustServe(t, o), client
}

// mustLink opens a link and says text with its first bytes.
func mustLink(t *testing.T, addr string, config *tls.Config, text string) (link net.Conn, socket *net.TCPConn) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	link = raw
	if config != nil {
		link = tls.Client(raw, config)
	} else {
		text = pipelink.Magic + text
	}
	if _, err := io.WriteString(link, text); err != nil {
		t.Fatal(err)
	}
	return link, raw.(*net.TCPConn)
}

func expect(t *testing.T, link io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(link, got); err != nil || string(got) != text {
		t.Fatalf("heard %q, %v, want %q", got, err, text)
	}
}

// A link loses nothing that comes with its protocol's name, hears that the client has
// closed its side, and is a connection less when it has ended.
func TestLinksAreConnections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			addr, config := mustEcho(t, secure)
			link, socket := mustLink(t, addr, config, "one")
			expect(t, link, "one")
			if _, err := io.WriteString(link, "two"); err != nil {
				t.Fatal(err)
			}
			expect(t, link, "two")
			if err := socket.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := link.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("the server goes on: %d, %v", n, err)
			}
			again, _ := mustLink(t, addr, config, "three")
			expect(t, again, "three")
		})
	}
}
