package transport

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"kvstore/internal/tlsconf"
)

// mustTLS issues a certificate for a node under a development CA in dir.
func mustTLS(t *testing.T, dir, name string) (*tlsconf.DevCA, *tlsconf.Source) {
	t.Helper()
	ca, err := tlsconf.OpenDevCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Issue(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlsconf.Open(c, tlsconf.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return ca, s
}

func withTLS(s *tlsconf.Source, addr string, streams bool) nodeOptions {
	return nodeOptions{
		addr:        addr,
		streams:     streams,
		serverCreds: s.ServerCredentials(true),
		transport:   func(o *Options) { o.Credentials, o.TLS = s.ClientCredentials(), s.Client },
	}
}

// TestTLS: nodes with certificates of one CA talk; a plaintext node and one of
// another CA do not get in.
func TestTLS(t *testing.T) { overCarriers(t, testTLS) }

func testTLS(t *testing.T, streams bool) {
	dir := t.TempDir()
	_, sa := mustTLS(t, dir, "a")
	_, sb := mustTLS(t, dir, "b")
	_, foreign := mustTLS(t, t.TempDir(), "a")
	a, b := mustNode(t, "a", withTLS(sa, "", streams)), mustNode(t, "b", withTLS(sb, "", streams))
	link(t, a, b)
	await(t, a.up, "the peer")
	a.Send("b", raftMessage(1, []byte("x")))
	a.Flush()
	b.collect(t, 1)

	for name, o := range map[string]nodeOptions{"plaintext": {streams: streams}, "foreign": withTLS(foreign, "", streams)} {
		creds := o.transport
		o.transport = func(o *Options) {
			o.HelloTimeout = 300 * time.Millisecond
			if creds != nil {
				creds(o)
			}
		}
		c := mustNode(t, "c", o)
		if err := c.SetPeer("b", b.addr); err != nil {
			t.Fatal(err)
		}
		line := await(t, c.logged, "a refusal")
		if !strings.HasPrefix(line, "peer is not connected") || c.Up("b") {
			t.Fatalf("%s: logged %q", name, line)
		}
	}
}

// TestRotationDuringTraffic replaces certificates, then the CA, while frames
// flow. Open streams go on; streams opened after it use the new files.
func TestRotationDuringTraffic(t *testing.T) { overCarriers(t, testRotationDuringTraffic) }

func testRotationDuringTraffic(t *testing.T, streams bool) {
	dirA, dirB := t.TempDir(), t.TempDir()
	caA, sa := mustTLS(t, dirA, "a")
	// Both trust caA at the start; b's certificate is of caA too.
	copyFile(t, dirA+"/ca.crt", dirB+"/ca.crt")
	copyFile(t, dirA+"/ca.key", dirB+"/ca.key")
	caB, sb := mustTLS(t, dirB, "b")
	a, b := mustNode(t, "a", withTLS(sa, "", streams)), mustNode(t, "b", withTLS(sb, "", streams))
	link(t, a, b)
	await(t, a.up, "the peer")
	exchange := func() {
		t.Helper()
		a.Send("b", raftMessage(1, []byte("x")))
		a.Flush()
		b.collect(t, 1)
	}
	exchange()

	// New certificates of the same CA.
	reissue(t, caA, "a", sa, true)
	reissue(t, caB, "b", sb, true)
	exchange() // on the open stream
	b = restart(t, a, b, sb, streams)
	exchange() // on a new one

	// A new CA: first both trust old and new, then certificates change, then
	// the old CA goes.
	newDir := t.TempDir()
	newCA, _ := mustTLS(t, newDir, "x")
	for _, d := range []string{dirA, dirB} {
		appendFile(t, newDir+"/ca.crt", d+"/ca.crt")
	}
	take(t, sa)
	take(t, sb)
	exchange()
	for name, d := range map[string]string{"a": dirA, "b": dirB} {
		if err := newCA.Reissue(name, "localhost", "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		copyFile(t, newDir+"/"+name+".key", d+"/"+name+".key")
		copyFile(t, newDir+"/"+name+".crt", d+"/"+name+".crt")
	}
	take(t, sb) // one node at a time
	b = restart(t, a, b, sb, streams)
	exchange()
	take(t, sa)
	for _, d := range []string{dirA, dirB} {
		copyFile(t, newDir+"/ca.crt", d+"/ca.crt")
	}
	take(t, sa)
	take(t, sb)
	exchange()
	b = restart(t, a, b, sb, streams)
	exchange()
}

// restart replaces b by a new node at its address.
func restart(t *testing.T, a, b *node, s *tlsconf.Source, streams bool) *node {
	t.Helper()
	b.shut()
	if err := await(t, a.down, "the loss of the peer"); err == nil {
		t.Fatal("the stream ended without a reason")
	}
	n := mustNode(t, b.id, withTLS(s, b.addr, streams))
	await(t, a.up, "the peer")
	return n
}

func reissue(t *testing.T, ca *tlsconf.DevCA, name string, s *tlsconf.Source, want bool) {
	t.Helper()
	if err := ca.Reissue(name, "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if want {
		take(t, s)
	}
}

// take polls until the source settles on its files: two polls that agree.
func take(t *testing.T, s *tlsconf.Source) {
	t.Helper()
	before := s.Report().Reloads
	for range 2 {
		if _, err := s.Poll(); err != nil {
			t.Fatal(err)
		}
	}
	if s.Report().Reloads != before+1 {
		t.Fatal("the new files were not taken")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func appendFile(t *testing.T, from, to string) {
	t.Helper()
	more, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	if err == nil {
		err = os.WriteFile(to, append(b, more...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestClientOverTLS: the clients for other RPCs use the same credentials.
func TestClientOverTLS(t *testing.T) {
	_, s := mustTLS(t, t.TempDir(), "a")
	a, b := mustNode(t, "a", withTLS(s, "", false)), mustNode(t, "b", withTLS(s, "", false))
	link(t, a, b)
	for _, get := range []func() error{
		func() error {
			c, err := a.Client("b")
			if err == nil {
				_, err = c.Hello(context.Background(), hello())
			}
			return err
		},
		func() error {
			c, err := a.ClientAt(b.addr)
			if err == nil {
				_, err = c.Hello(context.Background(), hello())
			}
			return err
		},
	} {
		if err := get(); err != nil {
			t.Fatal(err)
		}
	}
}
