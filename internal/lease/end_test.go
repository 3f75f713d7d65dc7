package lease_test

import (
	"context"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/lease"
	"kvstore/internal/router"
	"kvstore/internal/server/servertest"
)

// store is a map with leases in it. Keys are attached by hand, as the router does.
type store struct {
	*servertest.Backend
	t *testing.T
	s *lease.Service
}

func newStore(t *testing.T) *store {
	b := servertest.New()
	return &store{Backend: b, t: t, s: b.Leases()}
}

func (s *store) run(op *api.PipelineOp) *router.Call {
	s.t.Helper()
	c := &router.Call{Op: op}
	s.Do(s.t.Context(), c)
	return c
}

func (s *store) put(q *api.PutRequest) {
	s.t.Helper()
	if c := s.run(&api.PipelineOp{Op: &api.PipelineOp_Put{Put: q}}); c.Err != nil {
		s.t.Fatal(c.Err)
	}
}

func (s *store) has(key string) bool {
	return s.run(&api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: key}}}).Err == nil
}

func (s *store) grant(id string, keys ...string) {
	s.t.Helper()
	if _, err := s.s.Grant(s.t.Context(), &api.LeaseGrantRequest{Id: id, TtlSeconds: 5}); err != nil {
		s.t.Fatal(err)
	}
	for _, key := range keys {
		s.put(&api.PutRequest{Key: key, Lease: id})
		s.put(&api.PutRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseAttachedKey(id, "default", key),
			Value: format.EncodeLease(format.AttachedRecord{Namespace: "default", Key: key})})
	}
}

// expire takes a lease away as its deadline does.
func (s *store) expire(id string) {
	s.t.Helper()
	c := s.run(&api.PipelineOp{Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id)}}})
	if c.Err != nil || !c.Result.GetDelete().Existed {
		s.t.Fatal(c.Err, "the lease was not there")
	}
}

// left are all records of leases.
func (s *store) left() (n int) {
	page, err := s.List(s.t.Context(), &api.ListRequest{Namespace: keyspace.LeaseNamespaceName})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(page.Records)
}

// D1: whoever saw that a lease had ended, and goes on long after others did the
// work, changes nothing of a new lease with that id.
func TestStalledKeeper(t *testing.T) {
	s := newStore(t)
	s.grant("l", "a", "b")
	s.expire("l")
	_, seen, err := s.s.Look(t.Context(), "l")
	if err != nil {
		t.Fatal(err)
	}
	s.s.EndAll(t.Context(), "l")
	if s.has("a") || s.has("b") || s.left() != 0 {
		t.Fatalf("a lease was not ended: %d records", s.left())
	}
	s.grant("l", "a")
	if n, err := s.s.End(t.Context(), "l", seen); n != 0 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	s.s.EndAll(t.Context(), "l", "l", "none")
	if alive, _, err := s.s.Look(t.Context(), "l"); !alive || err != nil || !s.has("a") {
		t.Fatalf("the new lease was ended by who saw the old one: %v", err)
	}
}

// The end of a lease may be interrupted at each of its steps, by either way to it,
// and is finished by the keeper; its id is taken until then.
func TestInterruptedEnd(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		for stop, finished := 0, false; !finished; stop++ {
			s, n := newStore(t), 0
			s.grant("l", "a", "b", "c")
			s.put(&api.PutRequest{Key: "c", Lease: "other"})
			if !revoked {
				s.expire("l")
			}
			s.Fail = func(context.Context, *api.PipelineOp) error {
				if n++; n > stop {
					return fault.New(fault.Unavailable, "the node ended here")
				}
				return nil
			}
			if revoked {
				_, err := s.s.Revoke(t.Context(), &api.LeaseRevokeRequest{Id: "l"})
				finished = err == nil
			} else {
				s.s.EndAll(t.Context(), "l")
				finished = n <= stop
			}
			s.Fail = nil
			alive, mark, err := s.s.Look(t.Context(), "l")
			if err != nil || alive && (!revoked || !s.has("a")) || mark.Gone() != finished {
				t.Fatalf("revoked %v, stopped after %d: alive %v, finished %v, %v", revoked, stop, alive, finished, err)
			}
			if !mark.Gone() {
				_, err := s.s.Grant(t.Context(), &api.LeaseGrantRequest{Id: "l", TtlSeconds: 5})
				if fault.CodeOf(err) != fault.LeaseExists {
					t.Fatalf("stopped after %d: %v", stop, err)
				}
			}
			if alive {
				continue
			}
			s.s.EndAll(t.Context(), "l")
			if s.has("a") || s.has("b") || !s.has("c") || s.left() != 0 {
				t.Fatalf("revoked %v, stopped after %d: not ended", revoked, stop)
			}
		}
	}
}
