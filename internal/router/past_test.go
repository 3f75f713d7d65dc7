package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// version gives a key the two versions that the fake keeps.
func (h *fakeHost) version(key string, old, now keyspace.Revision) {
	h.old[dataKey(1, key)] = &format.Record{Header: format.Header{Version: 1, Revision: old}}
	h.data[dataKey(1, key)] = &format.Record{Header: format.Header{Version: 2, Revision: now}}
}

// A time is resolved once, where the request comes in, so that all groups of a
// batch are read at one revision; it moves no clock beyond now.
func TestReadAtTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		began := keyspace.RevisionAt(time.Now().UnixMilli())
		f.host.rev = began
		f.host.version("a", began-(10<<16), began-(2<<16))
		f.host.version("b", began-(10<<16), began-(2<<16))
		ms := began.UnixMilli()
		for _, c := range []struct {
			name    string
			ms      int64
			version uint64
			code    fault.Code
		}{
			{"now", ms, 2, ""}, {"the write's own", ms - 2, 2, ""}, {"before it", ms - 3, 1, ""}, {"before both", ms - 11, 0, fault.NotFound},
			{"ago", -3, 1, ""}, {"future", ms + 60_000, 0, fault.OutOfRange}, {"much later", maxExpiryMilli + 1, 0, fault.InvalidArgument},
		} {
			get, err := f.Get(t.Context(), &api.GetRequest{Key: "a", AtTimeMs: c.ms})
			if fault.CodeOf(err) != c.code || get.GetRecord().GetVersion() != c.version {
				t.Errorf("get %s: %v, %v", c.name, get, err)
			}
			batch, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: []string{"a", "b"}, AtTimeMs: c.ms})
			if c.code == fault.InvalidArgument {
				wantCode(t, err, c.code)
				continue
			}
			wantCode(t, err, "")
			for _, r := range batch.Results {
				if r.GetStatus().GetCode() != string(c.code) || r.GetRecord().GetVersion() != c.version {
					t.Errorf("batch %s: %v", c.name, r)
				}
			}
			if want := f.moment(0, c.ms); batch.ReadRevision != uint64(want) {
				t.Errorf("batch %s: read at %d, want %d", c.name, batch.ReadRevision, want)
			}
		}
		for _, at := range f.host.clocks {
			if at > keyspace.RevisionAt(time.Now().UnixMilli()+1) {
				t.Errorf("a clock was moved to %d, which is %d ms ahead", at, at.UnixMilli()-time.Now().UnixMilli())
			}
		}
	})
}

// A moment that this node's clock has and the group's has not yet is waited for.
func TestReadAtTimeWaitsForClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		began := time.Now()
		f.host.rev = keyspace.RevisionAt(began.UnixMilli() - 200)
		f.host.version("a", 1<<20, 2<<20)
		go func() {
			<-time.After(100 * time.Millisecond)
			f.host.mu.Lock()
			f.host.rev = keyspace.RevisionAt(began.UnixMilli() + 1)
			f.host.mu.Unlock()
		}()
		get, err := f.Get(t.Context(), &api.GetRequest{Key: "a", AtTimeMs: began.UnixMilli()})
		wantCode(t, err, "")
		if waited := time.Since(began); waited != 200*time.Millisecond || get.Record.Version != 2 {
			t.Fatalf("%v after %v", get, waited)
		}
	})
}

// behind makes f a follower of all groups, and returns their leader, node b.
func behind(t *testing.T, f *fixture) *fixture {
	b := newFixture(t, func(o *Options) { o.Node, o.Host = "b", newHost("b") })
	b.host = b.o.Host.(*fakeHost)
	f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "b", true }
	f.peers.client = func(keyspace.NodeID) (api.PeerClient, error) {
		return &fakeClient{
			forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.serve(func(identity string, op *api.PipelineOp) *api.PipelineResult {
					c := &Call{Op: op, Identity: identity, Forwarded: true, Encoded: true}
					b.Do(ctx, c)
					return overTheWire(t, c.Result)
				})
				return s, nil
			},
			call: func(ctx context.Context, q *api.CallRequest) (*api.CallResponse, error) {
				req := &api.HistoryRequest{}
				if err := proto.Unmarshal(q.Request, req); err != nil || q.Method != HistoryMethod {
					return nil, errors.Join(err, errors.New(q.Method))
				}
				page, err := b.ServeHistory(ctx, req)
				if err != nil {
					detail, message := ErrorDetail(err)
					return &api.CallResponse{Error: detail, Message: message}, nil
				}
				answer, err := proto.Marshal(page)
				return &api.CallResponse{Response: answer}, err
			},
		}, nil
	}
	return b
}

// overTheWire is what a peer gets of an answer.
func overTheWire(t *testing.T, res *api.PipelineResult) *api.PipelineResult {
	b, err := proto.Marshal(res)
	out := &api.PipelineResult{}
	if err = errors.Join(err, proto.Unmarshal(b, out)); err != nil {
		t.Error(err)
	}
	return out
}

// What this replica's history does not reach the leader is asked for, once.
func TestBelowTheFloorOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFixture(t)
		b := behind(t, a)
		a.host.floor = 100
		b.host.version("k", 20, 200)
		get, err := a.Get(t.Context(), &api.GetRequest{Key: "k", AtRevision: 50})
		wantCode(t, err, "")
		if get.Record.Version != 1 || get.ReadRevision != 50 {
			t.Fatalf("got %v", get)
		}
		batch, err := a.BatchGet(t.Context(), &api.BatchGetRequest{Keys: []string{"k"}, AtRevision: 50})
		wantCode(t, err, "")
		if batch.Results[0].GetRecord().GetVersion() != 1 || batch.ReadRevision != 50 {
			t.Fatalf("got %v", batch)
		}
		b.host.floor = 60
		_, err = a.Get(t.Context(), &api.GetRequest{Key: "k", AtRevision: 50})
		wantCode(t, err, fault.OutOfRange)
		if details := asFault(err).Details; details["floor"] != "60" {
			t.Fatalf("the floor of %v", details)
		}
	})
}

// A node that does not know batches of the past answers with the present, which is
// not taken for the past.
func TestBatchOfThePastNeedsNodesThatKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult {
			return &api.PipelineResult{Result: &api.PipelineResult_BatchGet{BatchGet: &api.BatchGetResponse{
				Results: []*api.BatchGetResult{{Record: &api.Record{Key: "k"}}}}}}
		})
		batch, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: []string{"k"}, AtRevision: 50})
		wantCode(t, err, "")
		if code := batch.Results[0].GetStatus().GetCode(); code != string(fault.Unsupported) {
			t.Fatalf("got %v", batch)
		}
	})
}

// The floor overtakes a read that has begun.
func TestFloorRisesDuringARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.version("k", 20, 200)
		f.host.reading = func() { f.host.floor = 60 }
		_, err := f.Get(t.Context(), &api.GetRequest{Key: "k", AtRevision: 50})
		wantCode(t, err, fault.OutOfRange)
		f.host.floor = 0
		batch, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: []string{"k"}, AtRevision: 50})
		wantCode(t, err, "")
		if code := batch.Results[0].GetStatus().GetCode(); code != string(fault.OutOfRange) {
			t.Fatalf("got %v", batch)
		}
	})
}

func TestListAtRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		now := keyspace.RevisionAt(time.Now().UnixMilli())
		f.host.rev = now
		f.host.data[dataKey(1, "k")] = &format.Record{Header: format.Header{Version: 1, Revision: 20}}
		for at, code := range map[keyspace.Revision]fault.Code{25: "", now: "", now + (10_000 << 16): fault.OutOfRange} {
			page, err := f.List(t.Context(), &api.ListRequest{AtRevision: uint64(at)})
			if fault.CodeOf(err) != code || err == nil && (page.Revision != uint64(at) || len(page.Records) != 1) {
				t.Errorf("at %d: %v, %v", at, page, err)
			}
		}
		page, err := f.List(t.Context(), &api.ListRequest{AtTimeMs: -60_000, CountOnly: true})
		wantCode(t, err, "")
		if want := f.moment(0, -60_000); page.Revision != uint64(want) || page.Count != 1 {
			t.Errorf("counted %v, want at %d", page, want)
		}
		_, err = f.List(t.Context(), &api.ListRequest{AtTimeMs: -1, AtRevision: 5})
		wantCode(t, err, fault.InvalidArgument)
		_, err = f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: []string{"k"}, AtRevision: 5, Consistency: api.Consistency_CONSISTENCY_BOUNDED_STALENESS, MaxStalenessMs: 1})
		wantCode(t, err, fault.InvalidArgument)
	})
}

func TestHistoryPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := behind(t, f)
		f.host.hosted = func(keyspace.GroupID) bool { return false }
		b.host.version("k", 20, 200)
		b.host.floor = 7
		page, err := f.History(t.Context(), &api.HistoryRequest{Key: "k", Limit: 1})
		wantCode(t, err, "")
		if len(page.Versions) != 1 || page.Versions[0].Record.Revision != 200 || page.NextRevision != 199 || page.Floor != 7 {
			t.Fatalf("first page %v", page)
		}
		page, err = f.History(t.Context(), &api.HistoryRequest{Key: "k", Limit: 1, UntilRevision: page.NextRevision})
		wantCode(t, err, "")
		if len(page.Versions) != 1 || page.Versions[0].Record.Revision != 20 || page.NextRevision != 0 {
			t.Fatalf("second page %v", page)
		}
		for _, q := range []*api.HistoryRequest{{}, {Key: "k", Limit: 1001}} {
			_, err = f.History(t.Context(), q)
			if code := fault.CodeOf(err); code != fault.InvalidArgument && code != fault.InvalidKey {
				t.Errorf("%v: %v", q, err)
			}
		}
		_, err = f.History(t.Context(), &api.HistoryRequest{Key: "k", Namespace: "none"})
		wantCode(t, err, fault.NamespaceNotFound)
	})
}

// A group that does not own the key's slot any more sends the read to the one that
// a newer map names.
func TestHistoryFollowsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		g, _ := f.o.Directory.Map().GroupOfKey(1, "k")
		f.host.slots[g] = format.SlotSet{}
		f.host.version("k", 20, 200)
		f.dir.refresh = func(m *Map) error {
			if f.dir.calls == 3 { // until then the map does not know
				f.host.give(g, 5, founded.Owned(g))
				f.record(m, 0)
			}
			return nil
		}
		page, err := f.History(ctx, &api.HistoryRequest{Key: "k"})
		wantCode(t, err, "")
		if len(page.Versions) != 2 || f.dir.calls != 3 {
			t.Fatalf("%v after %d looks", page, f.dir.calls)
		}
	})
}
