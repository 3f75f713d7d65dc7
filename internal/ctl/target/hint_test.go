package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvstore/client"
	"kvstore/internal/ctl/ctxfile"
)

func TestHints(t *testing.T) {
	for symptom, want := range map[string]string{
		"x509: certificate signed by unknown authority":     "--ca-file",
		"dial tcp 127.0.0.1:9: connect: connection refused": "--endpoints",
		"remote error: tls: certificate required":           "--cert-file",
		"something else": "",
	} {
		if got := Hint(errors.New(symptom)); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q", symptom, got)
		}
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	contexts := filepath.Join(dir, "contexts.yaml")
	t.Setenv(EnvEndpoints, "")
	t.Setenv(EnvContext, "")
	t.Setenv(EnvToken, "")
	t.Setenv(ctxfile.EnvFile, contexts)
	if err := os.WriteFile(file, []byte(" of a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := func(o Flags) string {
		o.Timeout, o.Read = defaultTimeout, client.Leader.String()
		c, _, err := o.Config("test")
		if err != nil {
			return err.Error()
		}
		return c.Token
	}
	if got := token(Flags{TokenFile: file}); got != "of a file" {
		t.Errorf("%q", got)
	}
	if got := token(Flags{TokenFile: file + "no"}); !strings.Contains(got, "write the token into it, or set "+EnvToken) {
		t.Errorf("%q", got)
	}
	err := ctxfile.Update(contexts, func(f *ctxfile.File) error {
		f.Set("prod", ctxfile.Context{Endpoints: []string{"h:1"}, TokenFile: file}, true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := token(Flags{}); got != "of a file" {
		t.Errorf("of the context: %q", got)
	}
	t.Setenv(EnvToken, "of the environment")
	if got := token(Flags{}); got != "of the environment" {
		t.Errorf("%q", got)
	}
	if got := token(Flags{TokenFile: file}); got != "of a file" {
		t.Errorf("beside the environment: %q", got)
	}
}
