package router

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

func TestTopology(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		top, err := f.Topology(t.Context(), &api.TopologyRequest{KnownEpoch: 6})
		wantCode(t, err, "")
		m := testMap()
		if len(top.SlotGroups) != keyspace.SlotCount || len(top.Groups) != testGroups+1 || len(top.Nodes) != 3 {
			t.Fatalf("topology of %d slots, %d groups, %d nodes", len(top.SlotGroups), len(top.Groups), len(top.Nodes))
		}
		for slot, g := range top.SlotGroups {
			if want, _ := m.GroupOf(keyspace.SlotID(slot)); keyspace.GroupID(g) != want {
				t.Fatalf("slot %d in group %d, want %d", slot, g, want)
			}
		}
		if top.SlotGroups[0] != 1 || top.SlotGroups[4095] != testGroups || top.Groups[2].LeaderNode != "a" {
			t.Fatalf("groups %v", top.Groups)
		}
		if top.Namespaces["app"] != 16 || top.Namespaces["default"] != 1 || top.MaxKeyBytes != 1024 {
			t.Fatalf("namespaces %v", top.Namespaces)
		}
		top, err = f.Topology(t.Context(), &api.TopologyRequest{KnownEpoch: 7})
		wantCode(t, err, "")
		if top.Epoch != 7 || top.SlotGroups != nil {
			t.Fatalf("answer to a caller that is up to date: %v", top)
		}
		f.host.give(1, 5, half(1))
		f.record(f.dir.m, 0)
		top, err = f.Topology(t.Context(), &api.TopologyRequest{KnownEpoch: 7})
		wantCode(t, err, "")
		if top.Epoch != 8 || top.SlotGroups[0] != 5 || top.SlotGroups[1] != 1 || len(top.Groups) != testGroups+3 {
			t.Fatalf("after a move: epoch %d, slots %v, %d groups", top.Epoch, top.SlotGroups[:4], len(top.Groups))
		}
	})
}

// replicas makes Digest's peers: each node hashes to what hashes says, after
// a while.
func replicas(f *fixture, hashes map[keyspace.NodeID]uint64) {
	hosts := map[keyspace.NodeID]*fakeHost{"a": f.host}
	routers := map[keyspace.NodeID]*Router{}
	for _, id := range []keyspace.NodeID{"b", "c"} {
		h := newHost(id)
		hosts[id] = h
		r, err := New(Options{Node: id, Host: h, Peers: f.peers, Directory: f.dir, Clock: newClock(), Rand: &countRand{}})
		if err != nil {
			panic(err)
		}
		routers[id] = r
	}
	var mu sync.Mutex
	index := keyspace.Index(10)
	for id, h := range hosts {
		h.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "b", true }
		h.digest = func(g keyspace.GroupID) (keyspace.Index, error) {
			if id != "b" {
				return 0, errWrongLeader(g, "b")
			}
			mu.Lock()
			index++
			at := index
			mu.Unlock()
			for id, h := range hosts {
				hash, ok := hashes[id]
				if !ok {
					continue
				}
				time.AfterFunc(200*time.Millisecond, func() {
					h.mu.Lock()
					defer h.mu.Unlock()
					h.digests[g] = host.Digest{Index: at, Hash: hash, Keys: 5}
				})
			}
			return at, nil
		}
	}
	f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
		return &fakeClient{call: func(ctx context.Context, q *api.CallRequest) (*api.CallResponse, error) {
			req := &api.GroupDigest{}
			if err := proto.Unmarshal(q.Request, req); err != nil {
				return nil, err
			}
			d, err := routers[id].ServeDigest(ctx, req)
			if err != nil {
				detail, message := ErrorDetail(err)
				return &api.CallResponse{Error: detail, Message: message}, nil
			}
			b, err := proto.Marshal(d)
			return &api.CallResponse{Response: b}, err
		}}, nil
	}
}

func TestDigestComparesAllReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		hashes map[keyspace.NodeID]uint64
		equal  bool
		errors int
	}{
		"equal":     {map[keyspace.NodeID]uint64{"a": 1, "b": 1, "c": 1}, true, 0},
		"different": {map[keyspace.NodeID]uint64{"a": 1, "b": 1, "c": 2}, false, 0},
		"behind":    {map[keyspace.NodeID]uint64{"a": 1, "b": 1}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				replicas(f, c.hashes)
				resp, err := f.Digest(t.Context(), &api.DigestRequest{})
				wantCode(t, err, "")
				if resp.Equal != c.equal || len(resp.Groups) != testGroups+1 {
					t.Fatalf("digest %v", resp)
				}
				for _, g := range resp.Groups {
					failed := 0
					for _, r := range g.Replicas {
						if r.Error != "" {
							failed++
						}
					}
					if failed != c.errors || g.Equal != c.equal || g.Index == 0 {
						t.Fatalf("group %v", g)
					}
				}
			})
		})
	}
}

// Damage on one replica is no reason to wait for the deadline, and it is said.
func TestCorruptionIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.read = func(_ keyspace.GroupID, done func(host.ReadPoint, error)) bool {
			done(host.ReadPoint{}, fault.New(fault.Corruption, "checksum"))
			return true
		}
		began := time.Now()
		c := getCall("", "k")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.Corruption)
		if time.Since(began) > time.Second {
			t.Fatalf("took %v", time.Since(began))
		}
	})
}

func TestErrorsSurviveTheWire(t *testing.T) {
	in := fault.Wrap(fault.WrongLeader, fault.New(fault.Internal, "cause", "n", 1), "outer", "group", 4).WithRetry(time.Millisecond / 2)
	in.Leader = "node-3"
	got := StatusError(ErrorStatus(in))
	e := asFault(got)
	if e.Code != fault.WrongLeader || e.Leader != "node-3" || e.Details["group"] != "4" || e.RetryAfter != time.Millisecond {
		t.Fatalf("%+v", e)
	}
	if e.Message != "outer: cause (n=1)" {
		t.Fatalf("message %q", e.Message)
	}
	if ErrorStatus(nil) != nil || StatusError(nil) != nil {
		t.Fatal("success has a status")
	}
	wantCode(t, StatusError(ErrorStatus(context.Canceled)), fault.Canceled)
}
