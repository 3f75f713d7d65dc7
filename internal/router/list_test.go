package router

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// filled returns a fixture with n keys over all groups, and the keys in order.
func filled(t *testing.T, n int) (*fixture, []string) {
	f := newFixture(t)
	var keys []string
	for i := range n {
		key := fmt.Sprintf("k/%04d", i)
		keys = append(keys, key)
		f.host.data[dataKey(1, key)] = &format.Record{
			Header: format.Header{Version: 1, Revision: 1}, Value: []byte(key),
			Tags: map[string]string{"odd": fmt.Sprint(i % 2)},
		}
	}
	sort.Strings(keys)
	f.keys = keys
	return f, keys
}

// all lists page by page.
func (f *fixture) all(t *testing.T, req *api.ListRequest) (keys []string, pages int) {
	t.Helper()
	for {
		resp, err := f.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, r := range resp.Records {
			keys = append(keys, r.Key)
		}
		if resp.ContinuationToken == "" {
			return keys, pages
		}
		req.ContinuationToken = resp.ContinuationToken
	}
}

func TestListMergesGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 500)
		reversed := slices.Clone(want)
		slices.Reverse(reversed)
		var odd []string
		for i := 1; i < len(want); i += 2 {
			odd = append(odd, want[i])
		}
		for _, c := range []struct {
			name  string
			req   *api.ListRequest
			want  []string
			pages int
		}{
			{"one page", &api.ListRequest{}, want, 1},
			{"pages", &api.ListRequest{Limit: 7, Prefix: "k/"}, want, 72},
			{"reverse", &api.ListRequest{Limit: 100, Reverse: true}, reversed, 5},
			{"range", &api.ListRequest{Start: "k/0100", End: "k/0200", Limit: 30}, want[100:200], 4},
			{"prefix", &api.ListRequest{Prefix: "k/012"}, want[120:130], 1},
			{"prefix and range", &api.ListRequest{Prefix: "k/01", Start: "k/0150", End: "x"}, want[150:200], 1},
			{"tags", &api.ListRequest{Limit: 100, Tags: map[string]string{"odd": "1"}}, odd, 3},
			{"nothing", &api.ListRequest{Prefix: "z"}, nil, 1},
			{"empty range", &api.ListRequest{Start: "b", End: "a"}, nil, 1},
		} {
			got, pages := f.all(t, c.req)
			if !slices.Equal(got, c.want) || pages != c.pages {
				t.Errorf("%s: %d keys on %d pages, want %d on %d", c.name, len(got), pages, len(c.want), c.pages)
			}
		}
	})
}

// All pages are read at the first page's revision, which every group has moved
// its clock past before it is read.
func TestListIsOneSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := filled(t, 100)
		first, err := f.List(t.Context(), &api.ListRequest{Limit: 10})
		wantCode(t, err, "")
		rounds := map[bool]int{}
		for _, atLeast := range f.host.clocks {
			rounds[atLeast > 0]++
			if atLeast > 0 && uint64(atLeast) != first.Revision {
				t.Fatalf("second round at %d, list at %d", atLeast, first.Revision)
			}
		}
		if rounds[false] != testGroups || rounds[true] < testGroups-1 {
			t.Fatalf("rounds of clocks %v", rounds)
		}
		if _, err = f.List(t.Context(), &api.ListRequest{Limit: 10, ContinuationToken: first.ContinuationToken}); err != nil {
			t.Fatal(err)
		}
		for _, q := range f.host.scans {
			if uint64(q.Revision) != first.Revision {
				t.Fatalf("scan at %d, list at %d", q.Revision, first.Revision)
			}
		}
	})
}

func TestListTokenBelongsToItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := filled(t, 50)
		page, err := f.List(t.Context(), &api.ListRequest{Limit: 10, Prefix: "k"})
		wantCode(t, err, "")
		for _, req := range []*api.ListRequest{
			{Prefix: "k/"}, {Prefix: "k", Start: "k/1"}, {Prefix: "k", Reverse: true}, {Prefix: "k", Namespace: "app"},
			{Prefix: "k", Tags: map[string]string{"odd": "1"}},
		} {
			req.ContinuationToken = page.ContinuationToken
			_, err := f.List(t.Context(), req)
			wantCode(t, err, fault.InvalidToken)
		}
		_, err = f.List(t.Context(), &api.ListRequest{ContinuationToken: "x"})
		wantCode(t, err, fault.InvalidToken)
		_, err = f.List(t.Context(), &api.ListRequest{Prefix: "k", Limit: 3, KeysOnly: true, ContinuationToken: page.ContinuationToken})
		wantCode(t, err, "")
		_, err = f.List(t.Context(), &api.ListRequest{Limit: MaxListLimit + 1})
		wantCode(t, err, fault.InvalidArgument)
	})
}

func TestListOfOneHashPartReadsOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := filled(t, 0)
		for i := range 9 {
			f.host.data[dataKey(1, fmt.Sprint("{u1}/", i))] = &format.Record{Header: format.Header{Version: 1}}
		}
		got, _ := f.all(t, &api.ListRequest{Prefix: "{u1}/"})
		if len(got) != 9 || len(f.host.scans) != 1 {
			t.Fatalf("%d keys by %d scans", len(got), len(f.host.scans))
		}
	})
}

func TestListCountsAndStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 300)
		resp, err := f.List(t.Context(), &api.ListRequest{CountOnly: true, Tags: map[string]string{"odd": "0"}})
		wantCode(t, err, "")
		if resp.Count != 150 || len(resp.Records) != 0 || resp.ContinuationToken != "" {
			t.Fatalf("count %v", resp)
		}
		var got []string
		scans := len(f.host.scans)
		err = f.ListStream(t.Context(), &api.ListRequest{Limit: 20}, func(page *api.ListResponse) error {
			for _, r := range page.Records {
				got = append(got, r.Key)
			}
			return nil
		})
		wantCode(t, err, "")
		if !slices.Equal(got, want) {
			t.Fatalf("%d keys streamed", len(got))
		}
		// What a page did not use stays for the next: no key is read twice.
		if n := len(f.host.scans) - scans; n > 40 {
			t.Fatalf("%d scans for a stream of 300 keys", n)
		}
	})
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.PageBytes = 1 << 20 })
		for i := range 20 {
			f.host.data[dataKey(1, fmt.Sprint(i))] = &format.Record{Header: format.Header{Version: 1}, Value: make([]byte, 300<<10)}
		}
		f.host.data[dataKey(1, "zz")] = &format.Record{Header: format.Header{Version: 1}, Value: make([]byte, 3<<20)}
		var total int
		err := f.ListStream(t.Context(), &api.ListRequest{}, func(page *api.ListResponse) error {
			if len(page.Records) > 3 {
				t.Errorf("%d records on a page", len(page.Records))
			}
			total += len(page.Records)
			return nil
		})
		wantCode(t, err, "")
		if total != 21 {
			t.Fatalf("%d records", total)
		}
	})
}

// Groups that are not hosted here are asked over the peer service, and a
// leader that moved is followed, also between nodes of two versions: the older
// one knows one group per clock request and answers with messages.
func TestListOverPeers(t *testing.T) {
	for _, old := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f, want := filled(t, 60)
			leader := newHost("c")
			leader.data = f.host.data
			c, err := New(Options{Node: "c", Host: leader, Peers: &fakePeers{}, Directory: f.dir, Clock: newClock(), Rand: &countRand{}})
			if err != nil {
				t.Fatal(err)
			}
			f.remote("b", nil)
			var mu sync.Mutex
			wrong := map[uint32]bool{}
			f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
				return &fakeClient{
					clock: func(q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
						if id != "c" {
							mu.Lock()
							defer mu.Unlock()
							wrong[q.Group] = true
							return nil, errWrongLeader(keyspace.GroupID(q.Group), "c")
						}
						if old {
							q = &api.GroupClockRequest{Group: q.Group, AtLeast: q.AtLeast}
						}
						a, err := c.ServeClock(t.Context(), q)
						if old {
							a.Index, a.Clocks = 0, nil
						}
						return a, err
					},
					scan: func(q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
						q.Encoded = q.Encoded && !old
						return sent(t, q, c.ServeScan)
					},
				}, nil
			}
			for range 2 {
				got, _ := f.all(t, &api.ListRequest{Limit: 25})
				if !slices.Equal(got, want) || len(wrong) != testGroups {
					t.Fatalf("%d keys, %d groups followed a new leader", len(got), len(wrong))
				}
			}
		})
	}
}

// sent is an answer as it arrives.
func sent(t *testing.T, q *api.GroupScanRequest, serve func(context.Context, *api.GroupScanRequest) (*api.GroupScanResponse, error)) (*api.GroupScanResponse, error) {
	t.Helper()
	a, err := serve(t.Context(), q)
	if err != nil {
		return nil, err
	}
	b, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	out := &api.GroupScanResponse{}
	return out, proto.Unmarshal(b, out)
}

// A replica here that lags is left out of what is read here, and one that
// fails is left for others.
func TestListLeavesReplicasThatCannotServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 200)
		f.host.readable = func(g keyspace.GroupID) bool { return g != 2 }
		if got, _ := f.all(t, &api.ListRequest{Limit: 30}); !slices.Equal(got, want) {
			t.Fatalf("%d keys with a replica that lags", len(got))
		}
		f.host.together = fault.New(fault.Corruption, "damaged")
		if got, _ := f.all(t, &api.ListRequest{Limit: 30}); !slices.Equal(got, want) {
			t.Fatalf("%d keys with a replica that fails", len(got))
		}
		f.host.together = fault.New(fault.OutOfRange, "below the floor")
		_, err := f.List(t.Context(), &api.ListRequest{})
		wantCode(t, err, fault.OutOfRange)
	})
}

// Lists that wait at the same time share the readings of the clocks.
func TestListsShareClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 50)
		const lists = 40
		f.host.gate = make(chan struct{})
		var wg sync.WaitGroup
		for range lists {
			wg.Go(func() {
				page, err := f.List(t.Context(), &api.ListRequest{})
				if err != nil || len(page.Records) != len(want) {
					t.Errorf("%d records, error %v", len(page.GetRecords()), err)
				}
			})
		}
		synctest.Wait() // one reading is held, the other lists wait for the next
		close(f.host.gate)
		wg.Wait()
		if n := len(f.host.clocks); n > 2*2*testGroups {
			t.Fatalf("%d clocks were read for %d lists", n, lists)
		}
	})
}

// The level of a list is what was asked for, or a snapshot where nothing here is
// as new as that.
func TestListLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 30)
		const stale = api.Consistency_CONSISTENCY_BOUNDED_STALENESS
		list := func(q *api.ListRequest) *api.ListResponse {
			page, err := f.List(t.Context(), q)
			wantCode(t, err, "")
			if len(page.Records) != len(want) && !q.CountOnly || q.CountOnly && page.Count != uint64(len(want)) {
				t.Fatalf("%v: %d records", q, len(page.Records))
			}
			return page
		}
		if page := list(&api.ListRequest{Consistency: stale, MaxStalenessMs: 500, CountOnly: true}); page.Consistency != api.Consistency_CONSISTENCY_SNAPSHOT {
			t.Errorf("with nothing as new: %v", page)
		}
		f.host.stale = func(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error) {
			return host.ReadPoint{Group: g, Rev: 1<<16 + keyspace.Revision(g), Age: 3*time.Millisecond - time.Duration(g)}, nil
		}
		page := list(&api.ListRequest{Consistency: stale, MaxStalenessMs: 500})
		if page.Consistency != stale || page.AgeMs != 3 || page.Revision != 1<<16+1 {
			t.Errorf("stale: %v at %d, %d ms old", page.Consistency, page.Revision, page.AgeMs)
		}
		for _, q := range []*api.ListRequest{{Consistency: stale}, {Consistency: 7}, {Consistency: stale, MaxStalenessMs: -1}} {
			_, err := f.List(t.Context(), q)
			wantCode(t, err, fault.InvalidArgument)
		}
		get := getCall("", "k")
		get.Op.GetGet().Consistency = api.Consistency_CONSISTENCY_SNAPSHOT
		f.Do(t.Context(), get)
		wantCode(t, get.Err, fault.InvalidArgument)
	})
}

// What is asked of a peer survives the wire, and malformed questions are refused.
func TestClockQuestionsOverTheWire(t *testing.T) {
	key := keyspace.AppendDataKey(nil, 1, []byte("k"))
	for _, asks := range [][]clockAsk{
		{{ClockAsk: host.ClockAsk{Group: 3}}},
		{{ClockAsk: host.ClockAsk{Group: 1, AtLeast: 9, Sets: []replica.Spans{{{Lower: []byte("a"), Upper: []byte("b")}}, {{Lower: []byte("c")}}}, Since: replica.Reading{Term: 2, Clock: 5}}},
			{ClockAsk: host.ClockAsk{Group: 2, AtLeast: 9, Sets: []replica.Spans{{{Lower: []byte("a"), Upper: []byte("b")}}, {{Lower: []byte("c")}}}}}},
		{{ClockAsk: host.ClockAsk{Group: 1, Sets: []replica.Spans{{{Lower: key, Upper: append(bytes.Clone(key), 0)}}}, Hold: 7}, read: &keySet{keys: [][]byte{key}, keysOnly: []bool{true}}}},
	} {
		b, err := proto.Marshal(clockRequest(asks))
		if err != nil {
			t.Fatal(err)
		}
		q := &api.GroupClockRequest{}
		if err := proto.Unmarshal(b, q); err != nil {
			t.Fatal(err)
		}
		got, err := clockAsks(q)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", asks) && len(asks[0].Sets) > 0 && asks[0].read == nil {
			t.Errorf("%+v arrives as %+v, %v", asks, got, err)
		}
	}
	for _, q := range []*api.GroupClockRequest{
		{Groups: []uint32{1, 2}, Since: []uint64{1}, Terms: []uint64{1}}, {Groups: []uint32{1}, Since: []uint64{1}},
		{Groups: []uint32{1}, Hold: 5}, {Groups: []uint32{1, 2}, Sets: []*api.KeySet{{Keys: [][]byte{key}}}},
		{Groups: []uint32{1}, Sets: []*api.KeySet{{Keys: [][]byte{key}, KeysOnly: []bool{true, true}}}},
	} {
		_, err := clockAsks(q)
		wantCode(t, err, fault.InvalidArgument)
	}
}
