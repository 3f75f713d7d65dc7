package client

import (
	"context"
	"testing"
	"time"
)

// Nodes that take connections and say nothing cost a new client little: others are
// asked beside them.
func TestStoppedNodesDoNotHoldUpConnecting(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.nodes[0].freeze()
	f.nodes[1].freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 5 { // the order is random
		c, err := New(ctx, Config{Endpoints: f.endpoints(), ConnectTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close() // always nil
	}
}
