package badger

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestDamagedStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	writeHistory(t, e, 1, 3000)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*"+tableSuffix))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	info, err := os.Stat(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tables[0], make([]byte, info.Size()), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, dir)
	if err := os.Remove(tables[0]); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, dir)
}

// damageFirstChange flips a bit of the first change in a manifest, which must
// not be the last one.
func damageFirstChange(t *testing.T, manifest []byte) {
	t.Helper()
	at := manifestMagicBytes
	for binary.BigEndian.Uint32(manifest[at:]) == 0 {
		at += manifestHeaderBytes
	}
	end := at + manifestHeaderBytes + int(binary.BigEndian.Uint32(manifest[at:]))
	if end == len(manifest) {
		t.Fatal("the manifest has one change only")
	}
	manifest[end-1] ^= 1
}

func mustRefuse(t *testing.T, dir string) {
	t.Helper()
	e, err := open(dir, testOptions(), maintenanceInterval)
	if err == nil {
		mustClose(t, e)
	}
	if fault.CodeOf(err) != fault.Corruption {
		t.Fatalf("opened a damaged store with error %v, want corruption", err)
	}
}

// A power cut during the last change of the manifest leaves its length without
// its bytes; Badger alone would not open again.
func TestTornManifestIsCut(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	for rev := keyspace.Revision(1); rev <= 12; rev++ {
		writeHistory(t, e, rev, 3000)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "MANIFEST")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, torn := range [][]byte{{0, 0, 0, 9, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 9, 1, 2, 3, 4, 0}, {0, 0, 0}} {
		if err := os.WriteFile(path, append(append([]byte(nil), whole...), torn...), 0o600); err != nil {
			t.Fatal(err)
		}
		e := mustOpen(t, dir)
		wantHistory(t, e, 1, 3000)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if whole, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	damageFirstChange(t, whole)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, dir)
}
