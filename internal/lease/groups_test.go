package lease_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/server/status"
)

const leaseGroups = 3

// in is a key that begins with a prefix and lies in a group.
func in(g keyspace.GroupID, prefix string) string {
	slots := format.FoundingSlots(g, leaseGroups)
	for i := 0; ; i++ {
		key := fmt.Sprint(prefix, i)
		if slots.Has(keyspace.SlotOf(keyspace.DefaultNamespace, key)) {
			return key
		}
	}
}

// Leases whose slots are in other groups than their keys.
func TestLeasesOverGroups(t *testing.T) {
	c := newCluster(t, leaseGroups)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{{"Ends", testEndsOverGroups}, {"Touched", testTouchedKeyEnds}, {"Swept", testSweptKey}, {"Race", testEndRace}} {
		t.Run(test.name, func(t *testing.T) {
			of := *c
			of.t = t
			test.run(t, &of)
		})
	}
}

// D1: the end of a lease, of either kind, deletes its keys in all groups and says
// why; those that were detached stay.
func testEndsOverGroups(t *testing.T, c *cluster) {
	for _, reason := range []string{"lease_revoked", "lease_expired"} {
		l := c.grant(in(1, reason), 60)
		keys := []string{in(2, reason+"/"), in(3, reason+"/"), in(1, reason+"/")}
		plain := in(2, reason+"/plain")
		next := c.watch(reason + "/")
		for _, key := range append(keys, plain) {
			c.put(&api.PutRequest{Key: key, Lease: l.Id})
		}
		c.put(&api.PutRequest{Key: plain})
		want := slices.Sorted(slices.Values([]string{"default/" + keys[0], "default/" + keys[1], "default/" + keys[2]}))
		if got := slices.Sorted(slices.Values(c.keysOf(l.Id))); !slices.Equal(got, want) {
			t.Fatalf("the lease has %v, want %v", got, want)
		}
		if reason == "lease_expired" {
			c.Clock.Pass(2 * time.Minute)
		} else if out, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: l.Id}); err != nil || out.Deleted != 3 {
			t.Fatalf("%v, %v", out, err)
		}
		for deleted := 0; deleted < len(keys); {
			ev := next()
			if ev.Type != api.WatchEvent_DELETE {
				continue
			}
			if deleted++; ev.Reason != reason || ev.Record.Lease != l.Id || !slices.Contains(keys, ev.Record.Key) {
				t.Fatalf("%v", ev)
			}
		}
		_, err := c.kv.Put(c.ctx(), &api.PutRequest{Key: keys[0], Lease: l.Id})
		c.expect(fault.LeaseNotFound, err)
		c.free(l.Id)
		if c.get(plain) == nil || c.get(keys[0]) != nil {
			t.Fatal("the end of the lease deleted other keys, or not its own")
		}
	}
}

// A key that was given more time than it had when it was attached ends with its
// lease all the same.
func testTouchedKeyEnds(t *testing.T, c *cluster) {
	l := c.grant(in(1, "touched"), 3600)
	key := in(2, "touched/")
	c.put(&api.PutRequest{Key: key, Lease: l.Id, TtlSeconds: 60})
	if _, err := c.kv.Touch(c.ctx(), &api.TouchRequest{Key: key, Persist: true}); err != nil {
		t.Fatal(err)
	}
	c.Clock.Pass(2 * time.Minute)
	if r := c.get(key); r.GetLease() != l.Id {
		t.Fatalf("a touch changed more than the deadline: %v", r)
	}
	if out, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: l.Id}); err != nil || out.Deleted != 1 || c.get(key) != nil {
		t.Fatalf("%v, %v", out, err)
	}
}

// An attached key that expires is swept, with that reason.
func testSweptKey(t *testing.T, c *cluster) {
	l := c.grant(in(1, "swept"), 3600)
	key := in(2, "swept/")
	next := c.watch("swept/")
	c.put(&api.PutRequest{Key: key, Lease: l.Id, TtlSeconds: 60})
	c.Clock.Pass(2 * time.Minute)
	for {
		if ev := next(); ev.Type == api.WatchEvent_DELETE {
			if ev.Reason != "expired" || ev.Record.Key != key {
				t.Fatalf("%v", ev)
			}
			break
		}
	}
	if keys := c.keysOf(l.Id); len(keys) != 0 {
		t.Fatalf("the lease still has %v", keys)
	}
}

// Whatever was attached while a lease ended is deleted with it, or was refused.
func testEndRace(t *testing.T, c *cluster) {
	for n := range 4 {
		l := c.grant(in(1, fmt.Sprint("race", n)), 60)
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var some [4]string
		started := make(chan struct{}, len(some))
		for i := range some {
			some[i] = in(keyspace.GroupID(2+i%2), fmt.Sprint("race", n, "/", i, "/"))
			wg.Go(func() {
				for m := 0; ; m++ {
					_, err := c.kv.Put(ctx, &api.PutRequest{Key: some[i] + "{" + some[i] + "}" + fmt.Sprint(m), Lease: l.Id})
					if m == 0 {
						started <- struct{}{}
					}
					if status.CodeOf(err) == fault.LeaseNotFound {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range some {
			<-started
		}
		if n%2 == 0 {
			c.Clock.Pass(2 * time.Minute)
		} else if _, err := c.leases.Revoke(ctx, &api.LeaseRevokeRequest{Id: l.Id}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		cancel()
		c.free(l.Id)
		list, err := c.kv.List(c.ctx(), &api.ListRequest{Prefix: fmt.Sprint("race", n, "/"), KeysOnly: true})
		if err != nil || len(list.Records) != 0 {
			t.Fatalf("%d keys outlived their lease, %v", len(list.Records), err)
		}
	}
}
