package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"kvstore/internal/config"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// The address book is a cache: whatever its file holds, what it knew is learned
// again.
func TestDamagedAddressBookIsLearnedAgain(t *testing.T) {
	for _, text := range []string{"", "null", "{", "[]", `{"b": 1}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "peers.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		tr, err := transport.New(transport.Options{Node: "a", Clock: &handClock{}})
		if err != nil {
			t.Fatal(err)
		}
		b := openAddressBook(&config.Config{Node: config.Node{DataDir: dir}}, "a", tr,
			func(keyspace.NodeID) string { return "" }, slog.New(slog.DiscardHandler))
		if err := b.SetPeer("b", "127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
		if got := b.addresses()["b"]; got != "127.0.0.1:1" {
			t.Errorf("%q: the peer is at %q", text, got)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}
