package rpc

import (
	"errors"
	"io"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/server/status"
)

func TestLeases(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	c, ctx := api.NewLeasesClient(f.conn), t.Context()
	l, err := c.Grant(ctx, &api.LeaseGrantRequest{TtlSeconds: 3})
	if err != nil || len(l.Id) != 26 || l.RemainingMs != 3000 {
		t.Fatalf("%v, %v", l, err)
	}
	if got, err := c.KeepAlive(ctx, &api.LeaseKeepAliveRequest{Id: l.Id}); err != nil || got.Revision != l.Revision {
		t.Fatalf("%v, %v", got, err)
	}
	all, err := c.List(ctx, &api.LeaseListRequest{})
	if err != nil || len(all.Leases) != 1 || all.Leases[0].Id != l.Id {
		t.Fatalf("%v, %v", all, err)
	}
	if _, err := c.Grant(ctx, &api.LeaseGrantRequest{TtlSeconds: 3, Id: l.Id}); status.CodeOf(err) != fault.LeaseExists {
		t.Fatal(err)
	}
	if _, err := c.Revoke(ctx, &api.LeaseRevokeRequest{Id: l.Id}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Describe(ctx, &api.LeaseDescribeRequest{Id: l.Id}); status.CodeOf(err) != fault.LeaseNotFound {
		t.Fatal(err)
	}
}

// A stream answers in order, and says of each lease what became of it.
func TestKeepAliveStream(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	c, ctx := api.NewLeasesClient(f.conn), t.Context()
	ids := []string{"a", "none", "b"}
	for _, id := range []string{"a", "b"} {
		if _, err := c.Grant(ctx, &api.LeaseGrantRequest{TtlSeconds: 3, Id: id}); err != nil {
			t.Fatal(err)
		}
	}
	st, err := c.KeepAliveStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range ids {
			if err := st.Send(&api.LeaseKeepAliveRequest{Id: id}); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range ids {
			got, err := st.Recv()
			if err != nil || got.Id != id || (got.Lease == nil) != (id == "none") ||
				fault.CodeOf(status.FromItem(got.Status)) != map[bool]fault.Code{true: fault.LeaseNotFound}[id == "none"] {
				t.Fatalf("%s: %v, %v", id, got, err)
			}
		}
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	st, err = c.KeepAliveStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&api.LeaseKeepAliveRequest{Id: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); err != nil {
		t.Fatal(err)
	}
	f.service.Drain()
	if _, err := st.Recv(); status.CodeOf(err) != fault.Unavailable {
		t.Fatal(err)
	}
}
