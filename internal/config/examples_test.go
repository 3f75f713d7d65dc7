package config

import (
	"path/filepath"
	"reflect"
	"testing"

	"kvstore/internal/tlsconf"
)

// TestExamples: the sections of S3 load as S3 writes them, alone and together.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "*.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	loaded := map[string]*Config{}
	for _, f := range files {
		c, err := Load(Sources{File: f})
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		loaded[filepath.Base(f)] = c
	}
	if t.Failed() {
		return
	}
	wantTLS := tlsconf.Config{ // S3.19
		CertFile: "/etc/certs/server.crt", KeyFile: "/etc/certs/server.key", CAFile: "/etc/certs/ca.crt",
		ClientAuth: "require_and_verify_client_cert", MinVersion: "1.3",
		CipherSuites: []string{"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
	}
	wantBadger := Badger{ // S3.14
		MemtableSize: 64 * MB, BlockCacheSize: 256 * MB, IndexCacheSize: 128 * MB, NumMemtables: 5, NumLevelZeroTables: 5,
		LevelSizeMultiplier: 10, ValueThreshold: 1024, ValueLogFileSize: GB, NumCompactors: 4, Compression: "snappy",
	}
	wantFirst := Member{NodeID: "node-1", Address: "10.0.1.10:7000", Role: "voter"} // S3.12
	for _, name := range []string{"tls.yaml", "kvstore.yaml"} {
		if got := loaded[name].TLS; !reflect.DeepEqual(got, wantTLS) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, name := range []string{"badger_config.yaml", "kvstore.yaml"} {
		if got := loaded[name].Badger; got != wantBadger {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := loaded["cluster_membership.yaml"].Membership; len(got) != 3 || got[0] != wantFirst {
		t.Errorf("cluster_membership.yaml: %+v", got)
	}
	if got := loaded["kvstore.yaml"].Advertise; got.HTTP != "10.0.0.10:8080" || got.GRPC != "10.0.0.10:8085" {
		t.Errorf("kvstore.yaml advertises %+v", got)
	}
}
