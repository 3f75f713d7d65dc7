package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// echo answers each stream of gossip with what it carries.
func echo(t *testing.T, n *node) {
	t.Helper()
	n.TakeGossip(func(conn net.Conn) {
		t.Cleanup(func() { _ = conn.Close() })
		go func() { _, _ = io.Copy(conn, conn) }()
	})
}

func expectEcho(t *testing.T, from *node, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.DialGossip(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// Streams of gossip and links of frames share the peer port.
func TestGossipStream(t *testing.T) {
	a, b := mustNode(t, "a", nodeOptions{}), mustNode(t, "b", nodeOptions{})
	echo(t, b)
	expectEcho(t, a, b.addr)
	link(t, a, b)
	await(t, a.up, "the peer")
	expectEcho(t, a, b.addr)
}

// Without somebody to take it, a stream is closed with a log line.
func TestGossipStreamNobodyTakes(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	closed(t, dialRaw(t, b, []byte(gossipMagic)))
	if line := await(t, b.logged, "a log line"); !strings.Contains(line, "gossip does not run") {
		t.Errorf("logged %q", line)
	}
}

// With TLS a stream needs a certificate of the cluster's authority.
func TestGossipStreamTLS(t *testing.T) {
	dir := t.TempDir()
	_, sa := mustTLS(t, dir, "a")
	_, sb := mustTLS(t, dir, "b")
	_, foreign := mustTLS(t, t.TempDir(), "a")
	a, b := mustNode(t, "a", withTLS(sa, "", false)), mustNode(t, "b", withTLS(sb, "", false))
	echo(t, b)
	expectEcho(t, a, b.addr)

	taken := make(chan net.Conn, 4)
	b.TakeGossip(func(conn net.Conn) { taken <- conn })
	for name, o := range map[string]nodeOptions{"plaintext": {}, "foreign": withTLS(foreign, "", false)} {
		c := mustNode(t, "c", o)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, err := c.DialGossip(ctx, b.addr)
		cancel()
		if err == nil { // without TLS, or before the server has judged the certificate
			_ = conn.SetDeadline(time.Now().Add(patience))
			closed(t, conn)
			_ = conn.Close()
		}
		if len(taken) > 0 {
			t.Fatalf("%s: a stream without a valid certificate was taken", name)
		}
	}
}
