package ctxfile

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	t.Setenv("HOME", filepath.FromSlash("/home/u"))
	t.Setenv("USERPROFILE", filepath.FromSlash("/home/u"))
	abs := t.TempDir()
	for _, c := range []struct{ env, xdg, want string }{
		{"", "", filepath.FromSlash("/home/u/.config/kvstore/contexts.yaml")},
		{"", abs, filepath.Join(abs, "kvstore", "contexts.yaml")},
		{"", "relative", filepath.FromSlash("/home/u/.config/kvstore/contexts.yaml")},
		{"x.yaml", abs, "x.yaml"},
	} {
		t.Setenv(EnvFile, c.env)
		t.Setenv("XDG_CONFIG_HOME", c.xdg)
		got, err := Path()
		if err != nil || got != c.want {
			t.Errorf("KVCTL_CONFIG=%q XDG_CONFIG_HOME=%q: %q, %v; want %q", c.env, c.xdg, got, err, c.want)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "contexts.yaml")
	f, err := Load(path)
	if err != nil {
		t.Fatalf("a missing file is empty: %v", err)
	}
	f.Set("dev", Context{Endpoints: []string{"127.0.0.1:8081"}}, false)
	f.Set("prod", Context{
		Endpoints: []string{"10.0.0.4:8085"}, Namespace: "app",
		TLS: &TLS{CAFile: "ca.crt", CertFile: "c.crt", KeyFile: "c.key", ServerName: "kv"},
	}, false)
	if f.Current != "dev" {
		t.Fatalf("the first context becomes current, have %q", f.Current)
	}
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Fatalf("loaded %+v, %v; saved %+v", got, err, f)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files left beside it: %v, %v", entries, err)
	}
}

func TestUnknownKeyIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("contexts:\n  a:\n    endpoint: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "endpoint") {
		t.Fatalf("want an error about the key, have %v", err)
	}
}

func TestUseDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	err := Update(path, func(f *File) error {
		f.Set("a", Context{}, false)
		f.Set("b", Context{}, true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil || f.Current != "b" {
		t.Fatalf("current %q, %v", f.Current, err)
	}
	if err := f.Use("c"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Use of a missing one: %v", err)
	}
	if err := f.Use("a"); err != nil || f.Current != "a" {
		t.Errorf("Use: %v, current %q", err, f.Current)
	}
	if err := f.Delete("a"); err != nil || f.Current != "" {
		t.Errorf("Delete: %v, current %q", err, f.Current)
	}
	if err := f.Delete("a"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Delete again: %v", err)
	}
}
