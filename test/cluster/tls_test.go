//go:build unix

package cluster

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"kvstore/internal/tlsconf"
	"kvstore/test/cluster/harness"
)

// TestChaosTLS: the same faults with TLS on every listener.
func TestChaosTLS(t *testing.T) { chaosKill(t, harness.Options{TLS: true}, *chaos, 2000**chaos) }

// TestChaosTLSRegisters: the same histories with TLS on every listener.
func TestChaosTLSRegisters(t *testing.T) {
	chaosRegisters(t, harness.Options{TLS: true}, max(1, *chaos/2))
}

// TestTLSRotation: new certificate files are taken up while requests run, by
// every listener, without one failed request; nodes find each other with them.
func TestTLSRotation(t *testing.T) {
	c := harness.Start(t, harness.Options{TLS: true})
	c.MustCtl("put", "k", "v") // with the context that dev wrote
	refusals(t, c)
	w := startWriter(t, c, 8)
	w.waitMore(200)
	ca, err := tlsconf.OpenDevCA(filepath.Join(c.Dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]*big.Int{}
	for _, n := range c.Nodes() {
		for _, addr := range []string{n.HTTP, n.GRPC, n.Peer, n.Metrics} {
			old[addr] = serial(t, c, addr)
		}
	}
	for _, name := range []string{"n1", "n2", "n3", "client"} {
		if err := ca.Reissue(name, "localhost", "127.0.0.1", "::1"); err != nil {
			t.Fatal(err)
		}
	}
	for addr, was := range old {
		harness.Eventually(t, func() error {
			if now := serial(t, c, addr); now.Cmp(was) == 0 {
				return fmt.Errorf("%s still shows certificate %v", addr, was)
			}
			return nil
		})
	}
	w.waitMore(200)
	w.stop()
	if _, n, err := readJournal(w.journal); err != nil || n.acked != w.outcomes() {
		t.Errorf("of %d writes: %+v, %v\n%s", w.outcomes(), n, err, w.p.Out)
	}
	c.Kill(1)
	c.Restart(1)
	c.WaitReady()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
}

// serial is the serial number of the certificate that a listener shows.
func serial(t *testing.T, c *harness.Cluster, addr string) *big.Int {
	t.Helper()
	config := c.ClientTLS()
	config.NextProtos = []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", addr, config)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber
}

// refusals: no plaintext, no client without a certificate.
func refusals(t *testing.T, c *harness.Cluster) {
	t.Helper()
	nobody := c.ClientTLS()
	nobody.Certificates, nobody.GetClientCertificate = nil, nil
	for _, n := range c.Nodes() {
		if status, body, err := c.Do(http.MethodGet, "http://"+n.HTTP+"/api/v1/keys/k", nil, nil); err == nil && status < 400 {
			t.Errorf("plaintext at %s: %d %s", n.HTTP, status, body)
		}
		onlyProbes(t, n.HTTP, nobody)
		onlyProbes(t, n.Metrics, nobody)
		for _, addr := range []string{n.HTTP, n.GRPC, n.Peer} {
			if err := handshake(addr, nobody); err == nil && addr != n.HTTP {
				t.Errorf("%s accepts a client without a certificate", addr)
			}
			plain, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_ = plain.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = plain.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
			if got, _ := io.ReadAll(plain); len(got) > 9 && got[3] == 4 { // a SETTINGS frame
				t.Errorf("%s speaks HTTP/2 without TLS: %q", addr, got)
			}
			_ = plain.Close()
		}
	}
}

// handshake connects and reads: with TLS 1.3 the refusal comes after the
// client's own handshake.
// onlyProbes: health needs no certificate, everything else does.
func onlyProbes(t *testing.T, addr string, nobody *tls.Config) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: nobody, DisableKeepAlives: true}}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401, "/api/v1/keys/k": 401, "/healthz/": 401} {
		var got int
		harness.Eventually(t, func() error { // a busy node may be unready for a moment
			res, err := client.Get("https://" + addr + path)
			if err != nil {
				return fmt.Errorf("%s%s without a certificate: %w", addr, path, err)
			}
			_ = res.Body.Close()
			if got = res.StatusCode; path == "/readyz" && got == http.StatusServiceUnavailable {
				return fmt.Errorf("%s is not ready", addr)
			}
			return nil
		})
		if got != want {
			t.Errorf("%s%s without a certificate: %d, want %d", addr, path, got, want)
		}
	}
}

func handshake(addr string, config *tls.Config) error {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
