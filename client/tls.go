package client

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// LoadTLS builds a TLS 1.3 configuration from PEM files. caFile verifies the
// servers (empty: the system's pool); certFile and keyFile identify this
// client (both or none).
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, wrapError(CodeInvalidArgument, err, "cannot read the CA file")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, newError(CodeInvalidArgument, "no certificate in the CA file", "file", caFile)
		}
	}
	if (certFile == "") != (keyFile == "") {
		return nil, newError(CodeInvalidArgument, "a client certificate needs both files", "cert_file", certFile, "key_file", keyFile)
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, wrapError(CodeInvalidArgument, err, "cannot load the client certificate")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
