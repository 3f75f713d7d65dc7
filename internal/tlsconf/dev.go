package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	devAuthorityLife = 10 * 365 * 24 * time.Hour
	devLife          = 365 * 24 * time.Hour
	// devRenew: a certificate with less life left is issued anew.
	devRenew = 30 * 24 * time.Hour
)

// DevCA is a throw-away certificate authority for development. Its key lies
// unprotected, readable by its owner only, in the data directory.
type DevCA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time
}

// OpenDevCA opens the authority in dir (ca.crt, ca.key), making both when
// there are none.
func OpenDevCA(dir string) (*DevCA, error) {
	ca := &DevCA{dir: dir, now: time.Now}
	err := ca.load()
	if errors.Is(err, fs.ErrNotExist) {
		err = ca.create()
	}
	if err != nil {
		return nil, fmt.Errorf("development CA in %s: %w", dir, err)
	}
	return ca, nil
}

// CAFile is the path of the authority's certificate.
func (ca *DevCA) CAFile() string { return filepath.Join(ca.dir, "ca.crt") }

func (ca *DevCA) load() error {
	pair, err := tls.LoadX509KeyPair(ca.CAFile(), filepath.Join(ca.dir, "ca.key"))
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("ca.key is a %T, not an ECDSA key", pair.PrivateKey)
	}
	ca.cert, ca.key = pair.Leaf, key
	return nil
}

func (ca *DevCA) create() error {
	if err := os.MkdirAll(ca.dir, 0o700); err != nil {
		return err
	}
	template, err := ca.template("kvstore development CA", devAuthorityLife)
	if err != nil {
		return err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := writePair(ca.dir, "ca", der, key); err != nil {
		return err
	}
	return ca.load()
}

// Issue returns a section for the node or client called name, valid for hosts
// (names and addresses; loopback is always included), with the certificate in
// name.crt and its key in name.key beside the authority. An existing
// certificate is kept while it covers the hosts and has a month to live.
func (ca *DevCA) Issue(name string, hosts ...string) (Config, error) {
	c := Config{
		CertFile:   filepath.Join(ca.dir, name+".crt"),
		KeyFile:    filepath.Join(ca.dir, name+".key"),
		CAFile:     ca.CAFile(),
		ClientAuth: DefaultClientAuth,
		MinVersion: DefaultMinVersion,
	}
	if name == "ca" || name != filepath.Base(name) {
		return Config{}, fmt.Errorf("development certificate: %q cannot name one", name)
	}
	hosts = append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	if ca.usable(c, hosts) {
		return c, nil
	}
	if err := ca.Reissue(name, hosts...); err != nil {
		return Config{}, fmt.Errorf("development certificate %s: %w", name, err)
	}
	return c, nil
}

func (ca *DevCA) usable(c Config, hosts []string) bool {
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil || pair.Leaf.CheckSignatureFrom(ca.cert) != nil || pair.Leaf.NotAfter.Before(ca.now().Add(devRenew)) {
		return false
	}
	for _, h := range hosts {
		if pair.Leaf.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

// Reissue writes a new key and certificate for exactly these hosts.
func (ca *DevCA) Reissue(name string, hosts ...string) error {
	template, err := ca.template(name, devLife)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return err
	}
	return writePair(ca.dir, name, der, key)
}

func (ca *DevCA) template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := ca.now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"kvstore development"}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(life),
	}, nil
}

// writePair writes the key before the certificate.
func writePair(dir, name string, der []byte, key *ecdsa.PrivateKey) error {
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, name+".key"), "PRIVATE KEY", b, 0o600); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", der, 0o644)
}

// writePEM replaces a file as a whole.
func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
