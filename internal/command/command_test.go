package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, main func([]string, *bytes.Buffer, *bytes.Buffer) int, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = main(args, &o, &e)
	return o.String(), e.String(), code
}

func kvstore(args []string, out, errs *bytes.Buffer) int       { return Main(args, out, errs) }
func kvStoreServer(args []string, out, errs *bytes.Buffer) int { return ServerMain(args, out, errs) }

// TestConfig: `config default` prints a file that `config check` accepts, and
// `config check` reports all problems at once.
func TestConfig(t *testing.T) {
	text, errs, code := run(t, kvstore, "config", "default")
	if code != 0 || errs != "" {
		t.Fatalf("config default: %d %s", code, errs)
	}
	file := filepath.Join(t.TempDir(), "kvstore.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := run(t, kvstore, "config", "check", "--config", file); code != 0 || !strings.Contains(out, "replication_factor: 3") {
		t.Errorf("config check: %d %s%s", code, out, errs)
	}
	out, errs, code := run(t, kvstore, "config", "check", "--profile", "edge", "--tls.cert_file", "a.crt", "--tls.key_file", "a.key", "--tls.ca_file", "ca.crt")
	for _, want := range []string{"# memory_budget is 128MB, beside Badger for: delta ", "# a node would not start here: tls.cert_file: open a.crt"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("config check does not say %q: %d %s%s", want, code, out, errs)
		}
	}
	_, errs, code = run(t, kvstore, "config", "check", "--config", file, "--cluster.groups", "0", "--log.level", "loud")
	if code != 1 || !strings.Contains(errs, "2 problems") || !strings.Contains(errs, "cluster.groups") || !strings.Contains(errs, "log.level") {
		t.Errorf("config check of a bad configuration: %d %s", code, errs)
	}
}

func TestServerRefusesBeforeItStarts(t *testing.T) {
	_, errs, code := run(t, kvstore, "server", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	if code != 1 || !strings.Contains(errs, "none.yaml") {
		t.Errorf("%d %s", code, errs)
	}
}

// TestAlias: KVStoreServer (S0.4) is `kvstore server`, and knows the rest too.
func TestAlias(t *testing.T) {
	if _, errs, code := run(t, kvStoreServer, "--cluster.groups", "0"); code != 1 || !strings.Contains(errs, "cluster.groups") {
		t.Errorf("KVStoreServer --cluster.groups 0: %d %s", code, errs)
	}
	if _, errs, code := run(t, kvStoreServer, "bogus"); code != 2 || !strings.Contains(errs, "bogus") {
		t.Errorf("KVStoreServer bogus: %d %s", code, errs)
	}
	if out, errs, code := run(t, kvStoreServer, "version"); code != 0 || !strings.HasPrefix(out, "kvstore ") {
		t.Errorf("KVStoreServer version: %d %s%s", code, out, errs)
	}
}

// TestUsage: what cannot be used is said on standard error and ends with 2.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"bogus"}, {"config", "bogus"}, {"completion", "tcsh"}, {"--bogus"}, {"dev", "extra"},
		{"dev", "--nodes", "many"}, {"server", "kvstore.yaml"}, {"server", "--config"}, {"version", "all"},
	} {
		out, errs, code := run(t, kvstore, args...)
		if code != 2 || out != "" || !strings.HasPrefix(errs, "kvstore: ") || !strings.Contains(errs, "--help` shows") {
			t.Errorf("%v: %d %q %q", args, code, out, errs)
		}
	}
	if _, errs, _ := run(t, kvstore, "sever"); !strings.Contains(errs, "did you mean server?") {
		t.Errorf("no suggestion: %s", errs)
	}
	for _, args := range [][]string{{}, {"config"}, {"completion"}, {"help"}, {"help", "server"}, {"--version"}, {"completion", "bash"}} {
		if out, errs, code := run(t, kvstore, args...); code != 0 || out == "" {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}
