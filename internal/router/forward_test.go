package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

func putResult(version uint64) *api.PipelineResult {
	return &api.PipelineResult{Result: &api.PipelineResult_Put{Put: &api.PutResponse{Version: version}}}
}

func refused(err error) *api.PipelineResult { return &api.PipelineResult{Status: ErrorStatus(err)} }

func TestForwardCarriesIdentityAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var identities []string
		var left int64
		f.remote("b", func(identity string, op *api.PipelineOp) *api.PipelineResult {
			identities = append(identities, identity)
			left = op.TimeoutMs
			return putResult(3)
		})
		c := putCall("app", "k", "v")
		c.Identity, c.Op.Id, c.Op.TimeoutMs = "alice", 42, 1500
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if c.Result.Id != 42 || c.Result.GetPut().Version != 3 {
			t.Fatalf("result %v", c.Result)
		}
		if len(identities) != 1 || identities[0] != "alice" || left != 1500 {
			t.Fatalf("identities %v, %d ms left", identities, left)
		}
	})
}

// What waits while a frame is on its way leaves as one frame, one per identity.
func TestForwardCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var frames [][]string
		gate := make(chan struct{})
		f.remote("b", nil)
		f.peers.client = func(keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				<-gate
				s := newStream(ctx)
				go func() {
					for frame := range s.frames {
						var keys []string
						resp := &api.PipelineResponse{}
						for _, op := range frame.Ops {
							keys = append(keys, frame.Identity+op.GetPut().Key)
							resp.Results = append(resp.Results, putResult(1))
							resp.Results[len(resp.Results)-1].Id = op.Id
						}
						frames = append(frames, keys)
						s.answer <- resp
					}
				}()
				t.Cleanup(func() { close(s.frames) })
				return s, nil
			}}, nil
		}
		var calls []*Call
		for i := range 10 {
			c := putCall("", fmt.Sprint(i), "")
			if i >= 7 {
				c.Identity = "x"
			}
			calls = append(calls, c)
		}
		f.Execute(t.Context(), calls, func(*Call) {})
		synctest.Wait()
		close(gate)
		synctest.Wait()
		for _, c := range calls {
			wantCode(t, c.Err, "")
		}
		if len(frames) != 2 || len(frames[0]) != 7 || len(frames[1]) != 3 {
			t.Fatalf("frames %v", frames)
		}
	})
}

func TestForwardFollowsTheLeadersName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", nil)
		var mu sync.Mutex
		var asked []keyspace.NodeID
		f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.serve(func(_ string, op *api.PipelineOp) *api.PipelineResult {
					mu.Lock()
					asked = append(asked, id)
					mu.Unlock()
					if id == "b" {
						return refused(errWrongLeader(1, "c"))
					}
					return putResult(1)
				})
				return s, nil
			}}, nil
		}
		began := time.Now()
		c := putCall("", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if fmt.Sprint(asked) != "[b c]" || time.Since(began) > 0 {
			t.Fatalf("asked %v in %v", asked, time.Since(began))
		}
		c = putCall("", "k", "v")
		f.Do(t.Context(), c)
		if fmt.Sprint(asked) != "[b c c]" {
			t.Fatalf("asked %v: the leader's name was not kept", asked)
		}
	})
}

// Two nodes that name each other cannot make an operation run in circles at
// full speed.
func TestWrongHintsAreFollowedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", nil)
		var mu sync.Mutex
		asked := 0
		f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.serve(func(_ string, op *api.PipelineOp) *api.PipelineResult {
					mu.Lock()
					asked++
					mu.Unlock()
					other := map[keyspace.NodeID]keyspace.NodeID{"b": "c", "c": "b"}[id]
					return refused(errWrongLeader(1, other))
				})
				return s, nil
			}}, nil
		}
		c := putCall("", "k", "v")
		c.Op.TimeoutMs = 5000
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.Unavailable)
		if asked < 5 || asked > 60 {
			t.Fatalf("asked %d times in 5 s", asked)
		}
	})
}

func TestForwardedOperationIsNotForwardedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "c", true }
		w := putCall("", "k", "v")
		w.Forwarded = true
		f.Do(t.Context(), w)
		wantCode(t, w.Err, fault.WrongLeader)
		if w.Result.Status.LeaderNode != "c" {
			t.Fatalf("status %v", w.Result.Status)
		}
		g := getCall("", "k")
		g.Forwarded = true
		f.Do(t.Context(), g)
		wantCode(t, g.Err, fault.NotFound) // served by the follower here
	})
}

// breaking serves node b with a stream that breaks once it got an operation;
// the other nodes answer.
func breaking(f *fixture, cause error) (asked *[]keyspace.NodeID) {
	f.remote("b", nil)
	asked = new([]keyspace.NodeID)
	var mu sync.Mutex
	f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
		return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
			s := newStream(ctx)
			go s.serve(func(_ string, op *api.PipelineOp) *api.PipelineResult {
				mu.Lock()
				*asked = append(*asked, id)
				mu.Unlock()
				if id == "b" {
					s.broken <- cause
					return nil
				}
				if op.GetGet() != nil {
					return &api.PipelineResult{Result: &api.PipelineResult_Get{Get: &api.GetResponse{}}}
				}
				if op.GetTransaction() != nil {
					return &api.PipelineResult{Result: &api.PipelineResult_Transaction{Transaction: &api.TransactionResponse{
						Succeeded: true, Results: []*api.TransactionResult{{}}}}}
				}
				return putResult(1)
			})
			return s, nil
		}}, nil
	}
	return asked
}

func TestLostConnectionAfterSend(t *testing.T) {
	cause := status.Error(codes.Unavailable, "connection reset")
	t.Run("write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			asked := breaking(f, cause)
			c := putCall("", "k", "v")
			f.Do(t.Context(), c)
			wantCode(t, c.Err, fault.UnknownOutcome)
			if len(*asked) != 1 {
				t.Fatalf("asked %v: a write was repeated", *asked)
			}
		})
	})
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			asked := breaking(f, cause)
			c := getCall("", "k")
			f.Do(t.Context(), c)
			wantCode(t, c.Err, "")
			if last := (*asked)[len(*asked)-1]; last == "b" {
				t.Fatalf("asked %v", *asked)
			}
		})
	})
	t.Run("transaction that only reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			asked := breaking(f, cause)
			_, err := f.Transaction(t.Context(), &api.TransactionRequest{Then: []*api.TransactionOp{thenGet("k")}})
			wantCode(t, err, "")
			if last := (*asked)[len(*asked)-1]; last == "b" {
				t.Fatalf("asked %v", *asked)
			}
		})
	})
}

// Not sent means not executed: the write goes on with another try.
func TestUnreachableLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		began := time.Now()
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult { return putResult(1) })
		working := f.peers.client
		var attempts int
		f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
			attempts++
			if time.Since(began) < 20*time.Second {
				return nil, errors.New("connection refused")
			}
			return working(id)
		}
		c := putCall("", "k", "v")
		c.Op.TimeoutMs = 30_000
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		// Three peers, each with a breaker that opens for up to 5 s.
		if attempts > 40 {
			t.Fatalf("%d attempts in 20 s: the breakers do not open", attempts)
		}
	})
}

func TestSilentPeer(t *testing.T) {
	silent := func(f *fixture, answers keyspace.NodeID) {
		f.remote("b", nil)
		f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
			return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
				s := newStream(ctx)
				go s.serve(func(_ string, op *api.PipelineOp) *api.PipelineResult {
					if id != answers {
						return nil
					}
					return &api.PipelineResult{Result: &api.PipelineResult_Get{Get: &api.GetResponse{}}}
				})
				return s, nil
			}}, nil
		}
	}
	t.Run("write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			silent(f, "")
			c := putCall("", "k", "v")
			c.Op.TimeoutMs = 1000
			began := time.Now()
			f.Do(t.Context(), c)
			wantCode(t, c.Err, fault.UnknownOutcome)
			if took := time.Since(began); took < time.Second || took > 2*time.Second {
				t.Fatalf("took %v", took)
			}
		})
	})
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			silent(f, "c")
			c := getCall("", "k")
			f.Do(t.Context(), c)
			wantCode(t, c.Err, "")
		})
	})
}

// The replica here may be the one that is cut off.
func TestReadLeavesAReplicaThatCannotConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult {
			return &api.PipelineResult{Result: &api.PipelineResult_Get{Get: &api.GetResponse{ReadRevision: 9}}}
		})
		f.host.hosted = func(keyspace.GroupID) bool { return true }
		f.host.read = func(_ keyspace.GroupID, done func(host.ReadPoint, error)) bool {
			done(host.ReadPoint{}, fault.New(fault.DeadlineExceeded, "no confirmation"))
			return true
		}
		c := getCall("", "k")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if c.Result.GetGet().ReadRevision != 9 {
			t.Fatalf("result %v", c.Result)
		}
	})
}

func TestFullLinkRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.PeerInflight = 3 })
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult { return nil })
		var calls []*Call
		for i := range 5 {
			c := putCall("", fmt.Sprint(i), "")
			c.Op.TimeoutMs = 500
			calls = append(calls, c)
		}
		f.Do(t.Context(), calls...)
		count := map[fault.Code]int{}
		for _, c := range calls {
			count[fault.CodeOf(c.Err)]++
		}
		if count[fault.Overloaded] != 2 || count[fault.UnknownOutcome] != 3 {
			t.Fatalf("codes %v", count)
		}
	})
}

func TestForwardedBatchFindsItsItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", func(_ string, op *api.PipelineOp) *api.PipelineResult {
			out := &api.BatchGetResponse{}
			for _, key := range op.GetBatchGet().Keys {
				out.Results = append(out.Results, &api.BatchGetResult{Record: &api.Record{Key: key}})
			}
			return &api.PipelineResult{Result: &api.PipelineResult_BatchGet{BatchGet: out}}
		})
		var keys []string
		for i := range 30 {
			keys = append(keys, fmt.Sprint("k", i))
		}
		resp, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: keys})
		wantCode(t, err, "")
		for i, r := range resp.Results {
			if r.GetRecord().GetKey() != keys[i] {
				t.Fatalf("item %d: %v", i, r)
			}
		}
	})
}

func TestCloseAnswersEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult { return nil })
		c := putCall("", "k", "v")
		answered := make(chan struct{})
		f.Execute(t.Context(), []*Call{c}, func(*Call) { close(answered) })
		synctest.Wait()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		<-answered
		wantCode(t, c.Err, fault.UnknownOutcome)
		c = putCall("", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.Unavailable)
	})
}

// asksAll makes the peers answer by f, which is told who was asked.
func (f *fixture) asksAll(serve func(id keyspace.NodeID) *api.PipelineResult) {
	f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
		return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
			s := newStream(ctx)
			go s.serve(func(string, *api.PipelineOp) *api.PipelineResult { return serve(id) })
			return s, nil
		}}, nil
	}
}

// A node that was down while a group moved knows only members that left. It
// finds the group through any node that knows better.
func TestAGroupThatMovedAwayIsFound(t *testing.T) {
	for name, oldOnes := range map[string]*api.PipelineResult{
		"the old members do not know": refused(errWrongLeader(1, "")),
		"the old members are gone":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.host.hosted = func(keyspace.GroupID) bool { return false }
				f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
				m := testMap()
				m.Nodes["d"], m.Nodes["e"] = Node{ID: "d"}, Node{ID: "e"}
				f.dir.m = m
				f.asksAll(func(id keyspace.NodeID) *api.PipelineResult {
					switch id {
					case "d":
						return refused(errWrongLeader(1, "e")) // hosts nothing and knows
					case "e":
						return putResult(1)
					}
					return oldOnes
				})
				if oldOnes == nil {
					serve := f.peers.client
					f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
						if id == "b" || id == "c" {
							return nil, fault.New(fault.Unavailable, "gone")
						}
						return serve(id)
					}
				}
				c := putCall("", "k", "v")
				c.Op.TimeoutMs = 5000
				f.Do(t.Context(), c)
				wantCode(t, c.Err, "")
			})
		})
	}
}

// A node that does not host a group names one that does.
func TestWhoHostsNothingNamesWhoDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.hosted = func(keyspace.GroupID) bool { return false }
		f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
		c := getCall("", "k")
		c.Forwarded = true
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.WrongLeader)
		if to := c.Result.Status.LeaderNode; to != "b" && to != "c" {
			t.Fatalf("names %q", to)
		}
		_, err := f.ServeScan(t.Context(), &api.GroupScanRequest{Group: 1})
		wantCode(t, err, fault.WrongLeader)
		if to := leaderOf(err); to != "b" && to != "c" {
			t.Fatalf("names %q", to)
		}
	})
}

// What a peer answers is an answer to what it was asked, or none.
func TestAnswersToOtherOperationsAreRefused(t *testing.T) {
	check := &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Key: "k", Condition: &api.Condition{MustExist: true}}}}
	put := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "k"}}}
	transaction := func() *api.PipelineOp {
		return &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{Then: []*api.TransactionOp{check, put}}}}
	}
	for name, c := range map[string]struct {
		op     *api.PipelineOp
		answer *api.PipelineResult
		item   func(*api.PipelineResult) *api.Status // nil: the whole is refused
	}{
		"another batch": {
			op: &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "k"}}}}},
			answer: &api.PipelineResult{Result: &api.PipelineResult_BatchDelete{BatchDelete: &api.BatchDeleteResponse{
				Results: []*api.BatchDeleteResult{{}}}}},
			item: func(r *api.PipelineResult) *api.Status { return r.GetBatchPut().GetResults()[0].GetStatus() },
		},
		"a put to a transaction":  {op: transaction(), answer: putResult(1)},
		"nothing":                 {op: transaction(), answer: &api.PipelineResult{}},
		"a part of a transaction": {op: transaction(), answer: &api.PipelineResult{Result: &api.PipelineResult_Transaction{Transaction: &api.TransactionResponse{Succeeded: true}}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult { return c.answer })
				call := &Call{Op: c.op}
				f.Do(t.Context(), call)
				err := call.Err
				if c.item != nil {
					err = StatusError(c.item(call.Result))
				}
				wantCode(t, err, fault.UnknownOutcome)
			})
		})
	}
}

// A peer may name other participants of a transaction, but only slots that there are.
func TestImpossibleParticipantsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var record format.SlotsRecord
		for g := keyspace.GroupID(1); g <= testGroups; g++ {
			record.Owners = append(record.Owners, format.SlotOwner{Group: g, Slots: format.FoundingSlots(g, testGroups)})
		}
		f.dir.m.Slots = NewSlotMap(&record, 1)
		f.remote("b", func(string, *api.PipelineOp) *api.PipelineResult {
			return &api.PipelineResult{Result: &api.PipelineResult_Order{Order: &api.TxnAnswer{
				State: api.TxnAnswer_STATE_PREPARED, Participants: []uint32{0, keyspace.SlotCount}}}}
		})
		q := &api.TransactionRequest{}
		for i := range 20 { // of several groups
			q.Then = append(q.Then, &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: fmt.Sprint(i)}}})
		}
		call := &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: q}, TimeoutMs: 1000}}
		f.Do(t.Context(), call)
		wantCode(t, call.Err, fault.UnknownOutcome)
	})
}
