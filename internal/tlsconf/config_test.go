package tlsconf

import (
	"strings"
	"testing"
)

// TestProblems: S3.19, every problem at once, each with its key and what is
// allowed.
func TestProblems(t *testing.T) {
	good := Config{
		CertFile: "/etc/certs/server.crt", KeyFile: "/etc/certs/server.key", CAFile: "/etc/certs/ca.crt",
		ClientAuth: "require_and_verify_client_cert", MinVersion: "1.3",
		CipherSuites: []string{"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
		want []string // parts of the problems, in order
	}{
		{"as written", func(*Config) {}, nil},
		{"off", func(c *Config) { *c = Config{} }, nil},
		{"defaults", func(c *Config) { c.ClientAuth, c.MinVersion, c.CipherSuites = "", "", nil }, nil},
		{"TLS 1.2 with a suite", func(c *Config) {
			c.MinVersion = "1.2"
			c.CipherSuites = append(c.CipherSuites, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
		}, nil},
		{"one file", func(c *Config) { c.KeyFile, c.CAFile = "", "" }, []string{"tls.key_file: missing", "tls.ca_file: missing"}},
		{"everything", func(c *Config) {
			c.CertFile, c.ClientAuth, c.MinVersion = "", "maybe", "1.1"
			c.CipherSuites = []string{"TLS_RSA_WITH_AES_128_CBC_SHA"}
		}, []string{
			"tls.cert_file: missing",
			`tls.client_auth: "maybe" is not one of none, request_client_cert`,
			`tls.min_version: "1.1" is not one of 1.2, 1.3`,
			`tls.cipher_suites: "TLS_RSA_WITH_AES_128_CBC_SHA" is not one of the AEAD suites TLS_AES_128_GCM_SHA256`,
		}},
		{"TLS 1.2 without a suite", func(c *Config) { c.MinVersion = "1.2" }, []string{"tls.cipher_suites: names no suite of TLS 1.2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := good
			conf.CipherSuites = append([]string(nil), good.CipherSuites...)
			c.edit(&conf)
			problems := conf.Problems()
			if len(problems) != len(c.want) || (conf.Validate() == nil) != (len(c.want) == 0) {
				t.Fatalf("problems %v, want %v", problems, c.want)
			}
			for i, p := range problems {
				if !strings.HasPrefix(p.Error(), c.want[i]) {
					t.Errorf("problem %q, want %q", p.Error(), c.want[i])
				}
			}
		})
	}
}
