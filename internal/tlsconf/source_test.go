package tlsconf

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait of a test; it is reached only on failure.
const patience = 20 * time.Second

func mustCA(t *testing.T) *DevCA {
	t.Helper()
	ca, err := OpenDevCA(filepath.Join(t.TempDir(), "tls"))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mustIssue(t *testing.T, ca *DevCA, name string, hosts ...string) Config {
	t.Helper()
	c, err := ca.Issue(name, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustOpen(t *testing.T, c Config, o Options) *Source {
	t.Helper()
	s, err := Open(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake connects over loopback and returns the serial number the client
// saw, or what either side said.
func handshake(t *testing.T, server, client *tls.Config) (serial string, err error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client = client.Clone()
	client.ServerName = "127.0.0.1"
	c := tls.Client(conn, client)
	_ = c.SetDeadline(time.Now().Add(patience))
	clientErr := c.Handshake()
	if clientErr != nil {
		_ = conn.Close()
	}
	serverErr := <-served
	_ = conn.Close()
	if clientErr != nil || serverErr != nil {
		return "", fmt.Errorf("client: %w, server: %w", clientErr, serverErr)
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16), nil
}

// TestClientAuth: clients are asked as configured, nodes always.
func TestClientAuth(t *testing.T) {
	ca := mustCA(t)
	foreign := mustOpen(t, mustIssue(t, mustCA(t), "foreign"), Options{}).Client()
	for auth, want := range map[string]struct{ none, foreign bool }{
		"none":                           {true, true},
		"verify_client_cert_if_given":    {true, false},
		"require_any_client_cert":        {false, true},
		"require_and_verify_client_cert": {false, false},
	} {
		c := mustIssue(t, ca, "node")
		c.ClientAuth = auth
		s := mustOpen(t, c, Options{})
		own := s.Client()
		bare := own.Clone()
		bare.Certificates = nil
		stranger := own.Clone()
		stranger.Certificates = nil
		stranger.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &foreign.Certificates[0], nil
		}
		for _, try := range []struct {
			name   string
			server *tls.Config
			client *tls.Config
			want   bool
		}{
			{"own", s.Server(), own, true},
			{"no certificate", s.Server(), bare, want.none},
			{"foreign", s.Server(), stranger, want.foreign},
			{"peer own", s.PeerServer(), own, true},
			{"peer without certificate", s.PeerServer(), bare, false},
			{"peer foreign", s.PeerServer(), stranger, false},
		} {
			if _, err := handshake(t, try.server, try.client); (err == nil) != try.want {
				t.Errorf("client_auth %s, %s: %v", auth, try.name, err)
			}
		}
		if _, err := handshake(t, s.Server(), foreign); err == nil {
			t.Errorf("client_auth %s: a client of another CA trusts the server", auth)
		}
	}
}

func TestMinVersion(t *testing.T) {
	ca := mustCA(t)
	for version, want := range map[string]bool{"1.2": true, "1.3": false} {
		c := mustIssue(t, ca, "node")
		c.MinVersion = version
		s := mustOpen(t, c, Options{})
		old := s.Client()
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if _, err := handshake(t, s.Server(), old); (err == nil) != want {
			t.Errorf("min_version %s: a TLS 1.2 handshake ends with %v", version, err)
		}
		if r := s.Report(); slices.Contains(r.SuitesInUse, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384") != want || len(r.Notes) != 0 {
			t.Errorf("min_version %s: report %+v", version, r)
		}
	}
	c := mustIssue(t, ca, "node")
	c.CipherSuites = []string{"TLS_AES_256_GCM_SHA384"}
	if r := mustOpen(t, c, Options{}).Report(); len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "TLS 1.3 always offers all") {
		t.Errorf("report %+v", r)
	}
}

// TestReload takes new files and keeps the old ones while the new are broken
// (ASKS H2). Configurations handed out before follow.
func TestReload(t *testing.T) {
	ca := mustCA(t)
	c := mustIssue(t, ca, "node")
	var told []error
	s := mustOpen(t, c, Options{OnReload: func(err error) { told = append(told, err) }})
	server := s.Server()
	serves := func() string {
		t.Helper()
		serial, err := handshake(t, server, s.Client())
		if err != nil {
			t.Fatal(err)
		}
		return serial
	}
	first := serves()
	poll := func(wantChanged bool, wantErr string) {
		t.Helper()
		var changed bool
		var err error
		for range 2 {
			changed, err = s.Poll()
		}
		if changed != wantChanged || wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Fatalf("poll: changed %v, %v; want %v, %q", changed, err, wantChanged, wantErr)
		}
	}
	poll(false, "")

	good := map[string][]byte{}
	for _, name := range []string{c.CertFile, c.KeyFile, c.CAFile} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		good[name] = b
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := mustIssue(t, mustCA(t), "node")
	otherKey, err := os.ReadFile(other.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	otherCA, err := os.ReadFile(other.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []struct {
		name string
		to   []byte
		want string
	}{
		{c.CertFile, good[c.CertFile][:100], "tls.cert_file"},
		{c.CertFile, nil, "tls.cert_file"},
		{c.KeyFile, otherKey, "private key does not match"},
		{c.CAFile, []byte("nothing"), "holds no PEM certificate"},
		{c.CAFile, otherCA, "not usable as a node's certificate"},
	} {
		write(broken.name, broken.to)
		poll(false, broken.want)
		poll(false, broken.want)
		if serves() != first {
			t.Fatal("another certificate is served")
		}
		write(broken.name, good[broken.name])
		poll(false, "")
	}
	if err := os.Remove(c.KeyFile); err != nil {
		t.Fatal(err)
	}
	poll(false, "tls.key_file")
	write(c.KeyFile, good[c.KeyFile])
	poll(false, "")

	if err := ca.Reissue("node", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	poll(true, "")
	if second := serves(); second == first || second != s.Report().Serial {
		t.Fatalf("serves %s after %s, reports %s", second, first, s.Report().Serial)
	}
	if r := s.Report(); r.Reloads != 1 || r.ReloadFailures != 6 || len(told) != 7 {
		t.Fatalf("report %+v, told %v", r, told)
	}
}

// TestExpired: an expired certificate is refused at the start and on reload.
func TestExpired(t *testing.T) {
	ca := mustCA(t)
	c := mustIssue(t, ca, "node")
	later := func() time.Time { return time.Now().Add(2 * devLife) }
	if _, err := Open(c, Options{Now: later}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Fatalf("opened an expired certificate: %v", err)
	}
}

// TestWatch: a started source takes changed files by itself.
func TestWatch(t *testing.T) {
	ca := mustCA(t)
	c := mustIssue(t, ca, "node")
	taken := make(chan error, 16)
	s := mustOpen(t, c, Options{Poll: time.Millisecond, OnReload: func(err error) { taken <- err }})
	s.Start(context.Background())
	before := s.Report().Serial
	if err := ca.Reissue("node", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for taking := true; taking; {
		select {
		case err := <-taken:
			taking = err != nil // the key may be seen before its certificate
		case <-timer.C:
			t.Fatal("new files were not taken")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Report().Serial == before {
		t.Fatal("the old certificate is in use")
	}
}

func TestOpenErrors(t *testing.T) {
	c := mustIssue(t, mustCA(t), "node")
	for name, edit := range map[string]func(*Config){
		"no certificate is configured": func(c *Config) { *c = Config{} },
		"tls.ca_file: missing":         func(c *Config) { c.CAFile = "" },
		"tls.key_file: open":           func(c *Config) { c.KeyFile += ".gone" },
	} {
		conf := c
		edit(&conf)
		if _, err := Open(conf, Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}

// TestDevCA: keys are private to their owner, and a second start uses what is
// there.
func TestDevCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "tls")
	ca, err := OpenDevCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := mustIssue(t, ca, "node-1", "example.test")
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && strings.HasSuffix(path, ".key") && info.Mode().Perm() != 0o600 || d.IsDir() && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	before := mustOpen(t, c, Options{}).Report().Serial

	again, err := OpenDevCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after := mustOpen(t, mustIssue(t, again, "node-1", "example.test"), Options{}).Report().Serial; after != before {
		t.Error("a second start issued a new certificate")
	}
	if after := mustOpen(t, mustIssue(t, again, "node-1", "other.test"), Options{}).Report().Serial; after == before {
		t.Error("the certificate does not cover a new host")
	}
	again.now = func() time.Time { return time.Now().Add(devLife - devRenew/2) }
	if _, err := again.Issue("node-1", "other.test"); err != nil {
		t.Fatal(err)
	}
	if r := mustOpen(t, c, Options{Now: again.now}).Report(); r.NotAfter.Before(time.Now().Add(devLife + devRenew)) {
		t.Errorf("a certificate near its end is kept: %v", r.NotAfter)
	}
	for _, name := range []string{"ca", "../x", "a/b"} {
		if _, err := again.Issue(name); err == nil {
			t.Errorf("issued a certificate called %q", name)
		}
	}
}
