package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/server/listen"
	serverrpc "kvstore/internal/server/rpc"
	"kvstore/internal/server/servertest"
)

// Operations go by a link where the node takes links, else by gRPC.
func TestLinksAndGRPC(t *testing.T) {
	f := newFakeCluster(t, 2)
	c, err := New(t.Context(), Config{Endpoints: f.endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i := range 40 {
		if _, err := c.Put(t.Context(), "key-"+string(rune('a'+i)), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if with, without := f.nodes[0].linked.Load(), f.nodes[1].linked.Load(); with == 0 || without != 0 || f.nodes[1].ops.Load() == 0 {
		t.Fatalf("%d links to the node that takes them, %d to the other, which executed %d", with, without, f.nodes[1].ops.Load())
	}
}

// realServer is a server of the product with the store of its own tests.
func realServer(t *testing.T, shared bool, server *tls.Config, auth guard.Authenticator) string {
	t.Helper()
	g := guard.New(guard.Options{Authenticate: auth})
	service, err := serverrpc.New(serverrpc.Options{Backend: servertest.New(), Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	o := listen.Options{Guard: g, Register: service.Register, TLS: server, Links: service.ServeLink}
	if shared {
		o.HTTP, o.Links = http.NotFoundHandler(), nil
	}
	s, err := listen.New(o)
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
		_ = service.Close()
	})
	return l.Addr().String()
}

// Ports of all kinds: for gRPC alone and shared with HTTP, plaintext and TLS, with
// and without links in the certificate's configuration of protocols.
func TestLinksOfRealServers(t *testing.T) {
	h := httptest.NewUnstartedServer(nil)
	h.StartTLS()
	defer h.Close()
	pool := x509.NewCertPool()
	pool.AddCert(h.Certificate())
	secure := &tls.Config{Certificates: h.TLS.Certificates, MinVersion: tls.VersionTLS13}
	trust := &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	old := secure.Clone() // says anew what it speaks in each handshake, without links
	old.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := secure.Clone()
		c.NextProtos = []string{"h2", "http/1.1"}
		return c, nil
	}
	for _, c := range []struct {
		name   string
		shared bool
		server *tls.Config
		link   bool
	}{
		{"gRPC", false, nil, true},
		{"gRPC with TLS", false, secure, true},
		{"gRPC with TLS, no links", false, old, false},
		{"shared", true, nil, false},
		{"shared with TLS", true, secure, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Endpoints: []string{realServer(t, c.shared, c.server, nil)}, Gateway: true}
			if c.server != nil {
				cfg.TLS = trust
			}
			kv, err := New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = kv.Close() }()
			large := make([]byte, 3<<20)
			for key, value := range map[string][]byte{"small": []byte("x"), "large": large} {
				if _, err := kv.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
				if rec, err := kv.Get(t.Context(), key); err != nil || len(rec.Value) != len(value) {
					t.Fatal(err)
				}
			}
			if got := kv.allNodes()[0].conns[0].small.raw.Load() != nil; got != c.link {
				t.Fatalf("a link: %t", got)
			}
		})
	}
}

// A link brings the caller's token, and one that is refused says why.
func TestLinksAuthenticate(t *testing.T) {
	addr := realServer(t, false, nil, func(_ context.Context, shown guard.Credentials) (string, error) {
		if shown.Method == "Pipeline" && shown.Authorization != "Bearer good" {
			return "", fault.New(fault.Unauthenticated, "who are you")
		}
		return "alice", nil
	})
	for token, want := range map[string]Code{"good": "", "bad": CodeUnauthenticated} {
		c, err := New(t.Context(), Config{Endpoints: []string{addr}, Gateway: true, Token: token, PlaintextToken: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Put(t.Context(), "k", nil)
		if CodeOf(err) != want {
			t.Errorf("%s: %q, %v", token, CodeOf(err), err)
		}
		_ = c.Close()
	}
}

// A node that stops ends its links as it ends streams: what was not executed goes
// elsewhere.
func TestLinksAreCut(t *testing.T) {
	f := newFakeCluster(t, 1)
	c, err := New(t.Context(), Config{Endpoints: f.endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 3 {
		if _, err := c.Put(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		c.allNodes()[0].conns[0].cut()
		if _, err := c.Get(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.nodes[0].linked.Load(); n < 3 {
		t.Fatalf("%d links", n)
	}
}
