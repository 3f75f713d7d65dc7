//go:build unix

package cluster

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestRemovedNodeServesNothing: a node that was removed and still runs says so
// wherever it is asked, serves nobody, and stays that way over a restart; with an
// empty directory it joins again.
func TestRemovedNodeServesNothing(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	names := []string{"n1", "n2", "n3"}
	m := c.Join("m4", c.Nodes()[0].Peer)
	c.WaitBalanced(append(names, "m4")...)
	cl := c.Client(client.Config{Endpoints: []string{m.GRPC, c.Nodes()[0].GRPC}}) // with streams that are open
	putThrough(t, cl, "before")
	c.MustCtl("node", "drain", "m4", "--wait")
	c.MustCtl("node", "remove", "m4")

	servesNothing(t, c, m)
	putThrough(t, cl, "after") // by the others
	m.Kill()
	m.Start()
	servesNothing(t, c, m)

	m.Kill()
	m.Wipe()
	m.Start()
	c.WaitBalanced(append(names, "m4")...)
	c.ExpectEqualDigests(3)
}

func putThrough(t *testing.T, cl *client.Client, key string) {
	t.Helper()
	for i := range 16 {
		retryUnavailable(t, func() error {
			_, err := cl.Put(t.Context(), fmt.Sprint(key, "/", i), []byte("x"))
			return err
		})
	}
}

// servesNothing waits until the node knows that it was removed.
func servesNothing(t *testing.T, c *harness.Cluster, m *harness.Member) {
	t.Helper()
	const says = "this node was removed from the cluster on "
	get := func(path string) (int, string, error) {
		resp, err := http.Get("http://" + m.HTTP + path)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text), err
	}
	harness.Eventually(t, func() error {
		code, text, err := get("/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(text, says)) {
			err = fmt.Errorf("/readyz: %d %s", code, text)
		}
		return err
	})
	if code, text, err := get("/api/v1/keys/before%2F1"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(text, says) {
		t.Errorf("a read by REST: %d %s, %v", code, text, err)
	}
	for _, command := range [][]string{{"get", "before/1"}, {"put", "new", "x"}, {"cluster", "status"}} {
		harness.Eventually(t, func() error { // within the second of a busy machine it may hear nothing
			r := c.Ctl(append(command, "-e", m.GRPC, "--gateway", "--timeout", "1s")...)
			if r.Code == 0 || r.Code == 3 { // it answers
				t.Fatalf("kvctl %v ends with %v", command, r)
			}
			if r.Code != 5 || !strings.Contains(r.ErrOut, says) {
				return fmt.Errorf("kvctl %v ends with %v", command, r)
			}
			return nil
		})
	}
	harness.Eventually(t, func() error {
		if r := c.Ctl("status", "-e", m.GRPC, "--gateway", "--timeout", "1s"); !strings.Contains(r.Out+r.ErrOut, says) {
			return fmt.Errorf("kvctl status: %v", r)
		}
		return nil
	})
	if log := m.Log(); !strings.Contains(log, says) {
		t.Errorf("its log does not say so")
	}
}
