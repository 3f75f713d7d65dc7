package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is the `tls:` section. TLS is on when any file is named.
type Config struct {
	CertFile     string   `koanf:"cert_file" yaml:"cert_file" json:"cert_file"`
	KeyFile      string   `koanf:"key_file" yaml:"key_file" json:"key_file"`
	CAFile       string   `koanf:"ca_file" yaml:"ca_file" json:"ca_file"`
	ClientAuth   string   `koanf:"client_auth" yaml:"client_auth" json:"client_auth"`
	MinVersion   string   `koanf:"min_version" yaml:"min_version" json:"min_version"`
	CipherSuites []string `koanf:"cipher_suites" yaml:"cipher_suites" json:"cipher_suites"`
}

// Defaults of the section (S3.19).
const (
	DefaultClientAuth = "require_and_verify_client_cert"
	DefaultMinVersion = "1.3"
)

var clientAuths = map[string]tls.ClientAuthType{
	"none":                           tls.NoClientCert,
	"request_client_cert":            tls.RequestClientCert,
	"require_any_client_cert":        tls.RequireAnyClientCert,
	"verify_client_cert_if_given":    tls.VerifyClientCertIfGiven,
	"require_and_verify_client_cert": tls.RequireAndVerifyClientCert,
}

var minVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// aeadSuites are the suites that may be named: all of TLS 1.3, and those of
// TLS 1.2 with forward secrecy and an AEAD.
var aeadSuites = func() map[string]*tls.CipherSuite {
	suites := make(map[string]*tls.CipherSuite)
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS13) ||
			strings.HasPrefix(s.Name, "TLS_ECDHE_") && (strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_CHACHA20_")) {
			suites[s.Name] = s
		}
	}
	return suites
}()

// Enabled reports whether TLS is configured.
func (c Config) Enabled() bool { return c.CertFile != "" || c.KeyFile != "" || c.CAFile != "" }

func (c Config) withDefaults() Config {
	if c.ClientAuth == "" {
		c.ClientAuth = DefaultClientAuth
	}
	if c.MinVersion == "" {
		c.MinVersion = DefaultMinVersion
	}
	return c
}

// Problem is one thing wrong with the section.
type Problem struct {
	// Key within the section ("min_version").
	Key string
	// Message says what is wrong and what is allowed.
	Message string
}

func (p Problem) Error() string { return "tls." + p.Key + ": " + p.Message }

// Problems returns everything wrong with the section, in the order of its
// keys. It does not read the files; Open does.
func (c Config) Problems() []Problem {
	var out []Problem
	add := func(key, f string, args ...any) {
		out = append(out, Problem{Key: key, Message: fmt.Sprintf(f, args...)})
	}
	if c.Enabled() {
		for _, f := range []struct{ key, name string }{
			{"cert_file", c.CertFile}, {"key_file", c.KeyFile}, {"ca_file", c.CAFile},
		} {
			if f.name == "" {
				add(f.key, "missing; cert_file, key_file and ca_file are set together, because nodes verify each other")
			}
		}
	}
	c = c.withDefaults()
	if _, ok := clientAuths[c.ClientAuth]; !ok {
		add("client_auth", "%q is not one of %s", c.ClientAuth, names(clientAuths))
	}
	if _, ok := minVersions[c.MinVersion]; !ok {
		add("min_version", "%q is not one of %s", c.MinVersion, names(minVersions))
	}
	for _, s := range c.CipherSuites {
		if aeadSuites[s] == nil {
			add("cipher_suites", "%q is not one of the AEAD suites %s", s, names(aeadSuites))
		}
	}
	if c.MinVersion == "1.2" && len(c.CipherSuites) > 0 && len(c.suites12()) == 0 {
		add("cipher_suites", "names no suite of TLS 1.2, but min_version allows it; add one or set min_version to 1.3")
	}
	return out
}

// Validate returns all Problems as one error.
func (c Config) Validate() error {
	var errs []error
	for _, p := range c.Problems() {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// suites12 returns the ids of the suites that a TLS 1.2 handshake may choose;
// those of TLS 1.3 are not for Go programs to choose.
func (c Config) suites12() []uint16 {
	var ids []uint16
	for _, name := range c.CipherSuites {
		if s := aeadSuites[name]; s != nil && !slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// allSuites12 returns every allowed suite of TLS 1.2.
func allSuites12() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		if aeadSuites[s.Name] != nil && !slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// suitesInUse returns the names of what a handshake can choose.
func (c Config) suitesInUse() []string {
	ids := c.suites12()
	if len(ids) == 0 {
		ids = allSuites12()
	}
	var list []string
	for _, s := range tls.CipherSuites() {
		is13 := slices.Contains(s.SupportedVersions, tls.VersionTLS13)
		if is13 || c.MinVersion == "1.2" && slices.Contains(ids, s.ID) {
			list = append(list, s.Name)
		}
	}
	return list
}

func names[V any](m map[string]V) string {
	list := make([]string, 0, len(m))
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
