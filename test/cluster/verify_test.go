//go:build unix

package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// verifyJournal reads every key of the journal and expects the value of its
// last acknowledged write, or of one whose outcome is unknown.
func verifyJournal(t *testing.T, c *harness.Cluster, w *writer) {
	t.Helper()
	fates, n, err := readJournal(w.journal)
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 0, len(fates))
	for key := range fates {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	cl := c.Client(client.Config{Read: client.Any})
	for part := range slices.Chunk(keys, 64) {
		for i, r := range readAll(t, cl, part) {
			verifyKey(t, fates[part[i]], part[i], r)
		}
	}
	t.Logf("%d acknowledged writes are there, in %d keys; %d had an unknown outcome, %d were refused", n.acked, len(keys), n.unknown, n.failed)
}

func readAll(t *testing.T, cl *client.Client, keys []string) []client.GetResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	results, err := cl.BatchGet(ctx, keys)
	if err != nil {
		t.Fatalf("reading back: %v", err)
	}
	return results
}

func verifyKey(t *testing.T, f *fate, key string, r client.GetResult) {
	t.Helper()
	if errors.Is(r.Err, client.ErrNotFound) {
		if f.acked >= 0 {
			t.Errorf("LOST: %s, acknowledged with write %d", key, f.acked)
		}
		return
	}
	if r.Err != nil {
		t.Errorf("%s: %v", key, r.Err)
		return
	}
	for _, n := range f.allowed() {
		if bytes.Equal(r.Record.Value, valueOf(f.worker, n)) {
			return
		}
	}
	t.Errorf("LOST: %s holds %.20q (%d bytes), acknowledged was write %d, unknown are %v", key, r.Record.Value, len(r.Record.Value), f.acked, f.unknown)
}
