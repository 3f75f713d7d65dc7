package tlsconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// FramesProtocol names, in ALPN, the connections between nodes that carry
// nothing but frames.
const FramesProtocol = "kvstore-frames/1"

// GossipProtocol names, in ALPN, the connections between nodes that carry the
// streams of gossip.
const GossipProtocol = "kvstore-gossip/1"

// ForwardProtocol names, in ALPN, the connections between nodes that carry one
// Forward stream and nothing else.
const ForwardProtocol = "kvstore-forward/1"

// PipelineProtocol names, in ALPN, the connections of clients that carry one
// Pipeline stream and nothing else.
const PipelineProtocol = "kvstore-pipeline/1"

// files are the bytes of the three files at one moment.
type files struct{ cert, key, ca []byte }

func readFiles(c Config) (files, error) {
	var f files
	for _, r := range []struct {
		to   *[]byte
		key  string
		name string
	}{{&f.cert, "cert_file", c.CertFile}, {&f.key, "key_file", c.KeyFile}, {&f.ca, "ca_file", c.CAFile}} {
		b, err := os.ReadFile(r.name)
		if err != nil {
			return files{}, fmt.Errorf("tls.%s: %w", r.key, err)
		}
		*r.to = b
	}
	return f, nil
}

func (f files) equal(g files) bool {
	return bytes.Equal(f.cert, g.cert) && bytes.Equal(f.key, g.key) && bytes.Equal(f.ca, g.ca)
}

// material is one generation of certificate, key and CA; immutable.
type material struct {
	files  files
	cert   tls.Certificate
	roots  *x509.CertPool
	client *tls.Config // for connections from here
	// Servers: client listeners, peer listener.
	server, peerServer *tls.Config
}

// load parses and checks one generation.
func load(c Config, f files, now time.Time) (*material, error) {
	cert, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file %s with tls.key_file %s: %w", c.CertFile, c.KeyFile, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(f.ca) {
		return nil, fmt.Errorf("tls.ca_file %s: holds no PEM certificate", c.CAFile)
	}
	if err := verify(&cert, roots, now); err != nil {
		return nil, fmt.Errorf("tls.cert_file %s: %w", c.CertFile, err)
	}
	m := &material{files: f, cert: cert, roots: roots}
	m.client = m.base(c)
	m.client.RootCAs = roots
	m.server = m.serverConfig(c, clientAuths[c.ClientAuth])
	m.server.NextProtos = append(m.server.NextProtos, PipelineProtocol)
	m.peerServer = m.serverConfig(c, tls.RequireAndVerifyClientCert)
	m.peerServer.NextProtos = append(m.peerServer.NextProtos, FramesProtocol, GossipProtocol, ForwardProtocol)
	return m, nil
}

// verify checks that peers, who trust the same CA, will accept the
// certificate now.
func verify(cert *tls.Certificate, roots *x509.CertPool, now time.Time) error {
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("intermediate certificate: %w", err)
		}
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{
			Roots:         roots,
			Intermediates: between,
			CurrentTime:   now,
			KeyUsages:     []x509.ExtKeyUsage{usage},
		}); err != nil {
			return fmt.Errorf("not usable as a node's certificate under tls.ca_file (server and client authentication are both needed): %w", err)
		}
	}
	return nil
}

func (m *material) base(c Config) *tls.Config {
	suites := c.suites12()
	if len(suites) == 0 {
		suites = allSuites12()
	}
	return &tls.Config{
		Certificates: []tls.Certificate{m.cert},
		MinVersion:   minVersions[c.MinVersion], // validated: 1.2 or 1.3
		CipherSuites: suites,
	}
}

func (m *material) serverConfig(c Config, auth tls.ClientAuthType) *tls.Config {
	t := m.base(c)
	t.ClientCAs = m.roots
	t.ClientAuth = auth
	t.NextProtos = []string{"h2", "http/1.1"}
	// A resumed session would outlive the CA that admitted it.
	t.SessionTicketsDisabled = true
	return t
}
