package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// ways are the forms of a list of everything; each returns the keys, or only
// how many.
var ways = map[string]func(f *fixture, t *testing.T) (keys []string, count int, err error){
	"pages": func(f *fixture, t *testing.T) ([]string, int, error) { return f.pages(t, &api.ListRequest{Limit: 40}) },
	"reverse": func(f *fixture, t *testing.T) ([]string, int, error) {
		keys, n, err := f.pages(t, &api.ListRequest{Limit: 40, Reverse: true})
		slices.Reverse(keys)
		return keys, n, err
	},
	"large page": func(f *fixture, t *testing.T) ([]string, int, error) {
		return f.pages(t, &api.ListRequest{Limit: 10_000})
	},
	"stream": func(f *fixture, t *testing.T) (keys []string, n int, err error) {
		err = f.ListStream(t.Context(), &api.ListRequest{Limit: 40}, func(p *api.ListResponse) error {
			for _, r := range p.Records {
				keys = append(keys, r.Key)
			}
			return nil
		})
		return keys, len(keys), err
	},
	"count": func(f *fixture, t *testing.T) ([]string, int, error) {
		f.host.visits = 9
		p, err := f.List(t.Context(), &api.ListRequest{CountOnly: true})
		return nil, int(p.GetCount()), err
	},
	// Most pages of a group have nothing.
	"rare": func(f *fixture, t *testing.T) ([]string, int, error) {
		f.host.visits = 3
		for i, k := range f.keys {
			if i%10 != 0 {
				f.host.data[dataKey(1, k)].Tags = nil
				continue
			}
			f.host.data[dataKey(1, k)].Tags = map[string]string{"rare": "1"}
		}
		keys, n, err := f.pages(t, &api.ListRequest{Tags: map[string]string{"rare": "1"}})
		for i, k := range f.keys { // as if the others were there
			if i%10 != 0 {
				keys, n = append(keys, k), n+1
			}
		}
		slices.Sort(keys)
		return keys, n, err
	},
}

func (f *fixture) pages(t *testing.T, q *api.ListRequest) (keys []string, n int, err error) {
	for {
		p, err := f.List(t.Context(), q)
		if err != nil {
			return nil, 0, err
		}
		for _, r := range p.Records {
			keys = append(keys, r.Key)
		}
		if q.ContinuationToken = p.ContinuationToken; q.ContinuationToken == "" {
			return keys, len(keys), nil
		}
	}
}

// places are where the groups of a list are: together here, each apart, or at
// another node.
var places = map[string]func(f *fixture, t *testing.T){
	"together": func(*fixture, *testing.T) {},
	"apart": func(f *fixture, _ *testing.T) {
		f.host.readable = func(keyspace.GroupID) bool { return false }
	},
	"elsewhere": func(f *fixture, t *testing.T) {
		peer, err := New(Options{Node: "b", Host: f.host, Peers: &fakePeers{}, Directory: f.dir, Clock: newClock(), Rand: &countRand{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = peer.Close() })
		f.o.Host = &elsewhereHost{fakeHost: f.host}
		for g := range keyspace.GroupID(testGroups + 3) {
			f.hints.set(g, "b")
		}
		f.peers.client = func(keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{
				clock: func(q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
					return peer.ServeClock(t.Context(), q)
				},
				scan: func(q *api.GroupScanRequest) (*api.GroupScanResponse, error) { return sent(t, q, peer.ServeScan) },
			}, nil
		}
	},
}

// A group that the map does not know is found, and the snapshot has what it
// acknowledged before the list began.
func TestListFindsNewOwners(t *testing.T) {
	for name, list := range ways {
		for where, place := range places {
			t.Run(name+", "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, want := filled(t, 300)
					place(f, t)
					f.host.give(1, 5, half(1))
					f.follows()
					keys, n, err := list(f, t)
					wantCode(t, err, "")
					if n != len(want) || keys != nil && !slices.Equal(keys, want) {
						t.Fatalf("%d keys, want %d", n, len(want))
					}
					if f.dir.calls != 1 {
						t.Errorf("the map was read %d times", f.dir.calls)
					}
					if last := f.host.scans[len(f.host.scans)-1].Revision; last <= f.host.scans[0].Revision {
						t.Errorf("revision %d has not the new group's clock, that without it was %d", last, f.host.scans[0].Revision)
					}
				})
			})
		}
	}
}

// The slots of a list of one {hash} are one.
func TestListOfOneSlotFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var want []string
		for i := range 50 {
			key := fmt.Sprintf("{tag}/%02d", i)
			want = append(want, key)
			f.host.data[dataKey(1, key)] = &format.Record{Header: format.Header{Version: 1, Revision: 1}}
		}
		var slots format.SlotSet
		slots.Add(keyspace.SlotOf(1, "{tag}/"))
		g, _ := founded.GroupOfKey(1, "{tag}/")
		f.follows()
		for _, to := range []keyspace.GroupID{5, 6} { // the second time between two pages
			f.host.give(g, to, slots)
			keys, _, err := f.pages(t, &api.ListRequest{Prefix: "{tag}/", Limit: 20})
			wantCode(t, err, "")
			if !slices.Equal(keys, want) {
				t.Fatalf("owned by %d: %d keys, want %d", to, len(keys), len(want))
			}
			g = to
		}
		var others format.SlotSet
		for slot := range allSlots.All() {
			if !slots.Has(slot) {
				others.Add(slot)
			}
		}
		f.host.scanning = func([]host.ScanPoint, host.ScanRequest) { f.host.take(1, others) }
		if _, _, err := f.pages(t, &api.ListRequest{Prefix: "{tag}/"}); err != nil {
			t.Fatalf("the owners of other slots mattered: %v", err)
		}
	})
}

// transfers moves slots of the fake's groups step by step while lists go on.
type transfers struct {
	f       *fixture
	r       *rand.Rand
	mu      sync.Mutex
	from    keyspace.GroupID // of the move under way, 0 without one
	slots   format.SlotSet
	left    int // moves to come
	steps   int
	percent int
}

// step may take the next step of a move: its slots leave, or are accepted.
func (m *transfers) step() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.IntN(100) >= m.percent {
		return
	}
	m.steps++
	if m.from != 0 {
		m.finish()
		return
	}
	if m.left == 0 {
		return
	}
	m.left--
	m.from = keyspace.GroupID(1 + m.r.IntN(testGroups))
	m.slots = format.SlotSet{}
	m.f.host.mu.Lock()
	owned := m.f.host.set(m.from)
	m.f.host.mu.Unlock()
	for slot := range owned.All() {
		if m.r.IntN(3) == 0 {
			m.slots.Add(slot)
		}
	}
	m.f.host.take(m.from, m.slots)
}

func (m *transfers) finish() {
	m.f.host.own(testGroups+1+keyspace.GroupID(m.r.IntN(2)), m.slots)
	m.from = 0
}

// Every key is there once whenever slots change their owners: between the
// reads of two groups, between two pages of one, between two pages of the list.
func TestListsWhileSlotsMove(t *testing.T) {
	for name, list := range ways {
		for where, place := range places {
			t.Run(name+", "+where, func(t *testing.T) {
				moved := 0
				for seed := range uint64(6) {
					synctest.Test(t, func(t *testing.T) {
						f, want := filled(t, 400)
						place(f, t)
						m := &transfers{f: f, r: rand.New(rand.NewPCG(seed, 1)), left: 4, percent: 5 + int(seed%4)*15}
						f.host.scanning = func([]host.ScanPoint, host.ScanRequest) { m.step() }
						f.dir.refresh = func(next *Map) error {
							m.mu.Lock()
							defer m.mu.Unlock()
							if m.from != 0 && m.r.IntN(2) == 0 {
								m.finish()
							}
							f.record(next, m.from)
							return nil
						}
						keys, n, err := list(f, t)
						if err != nil {
							t.Fatalf("seed %d: %v", seed, err)
						}
						if n != len(want) || keys != nil && !slices.Equal(keys, want) {
							t.Fatalf("seed %d: %d keys of %d after %d steps, %s", seed, n, len(want), m.steps, differ(keys, want))
						}
						moved += m.steps
					})
				}
				if moved < 6 {
					t.Fatalf("slots moved %d times in all lists together", moved)
				}
			})
		}
	}
}

func differ(got, want []string) string {
	for _, k := range want {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != k })); n != 1 {
			return fmt.Sprintf("%s is there %d times", k, n)
		}
	}
	return "no key differs"
}

// A replica here that lags claims what its group gave up; leaders do not.
func TestListAsksLeadersWhenTwoClaimASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, want := filled(t, 200)
		before := f.host.set(1)
		f.host.give(1, 5, half(1))
		f.record(f.dir.m, 0)
		f.host.scanning = func(at []host.ScanPoint, _ host.ScanRequest) {
			f.host.mu.Lock()
			defer f.host.mu.Unlock()
			owned := founded.Owned(1)
			moved := half(1)
			if f.host.slots[1] = owned.Without(&moved); len(at) > 1 { // not asked as a leader
				f.host.slots[1] = before
			}
		}
		keys, _, err := f.pages(t, &api.ListRequest{Limit: 50})
		wantCode(t, err, "")
		if !slices.Equal(keys, want) {
			t.Fatalf("%d keys, want %d: %s", len(keys), len(want), differ(keys, want))
		}
	})
}

// There is an end to it.
func TestListWithoutOwnersEnds(t *testing.T) {
	for name, list := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, _ := filled(t, 100)
				f.host.take(2, half(2))
				_, _, err := list(f, t)
				wantCode(t, err, fault.Unavailable)
				if errors.Is(err, errUncovered) || f.dir.calls > maxRepeats {
					t.Errorf("%v after %d looks at the map", err, f.dir.calls)
				}
			})
		})
	}
}
