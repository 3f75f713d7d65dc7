package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

type watchServer = grpc.BidiStreamingServer[api.WatchRequest, api.WatchResponse]

// Watch implements api.KVStoreServer.
func (n *fakeNode) Watch(ss watchServer) error {
	if f := n.watch.Load(); f != nil {
		return (*f)(ss)
	}
	return rpcError(statusOf(CodeUnsupported))
}

// script serves each stream with the next of some functions; the last one goes on.
func (f *fakeCluster) script(each ...func(watchServer) error) {
	next := make(chan func(watchServer) error, len(each))
	for _, s := range each {
		next <- s
	}
	last := each[len(each)-1]
	serve := func(ss watchServer) error {
		select {
		case s := <-next:
			return s(ss)
		default:
			return last(ss)
		}
	}
	for _, n := range f.nodes {
		n.watch.Store(&serve)
	}
}

// opened takes the request that opens a watch.
func opened(ss watchServer) (*api.WatchCreate, error) {
	q, err := ss.Recv()
	return q.GetCreate(), err
}

func putAt(rev uint64, key string) *api.WatchEvent {
	return &api.WatchEvent{Record: &api.Record{Key: key, Revision: rev, Value: []byte("v"), Checksum: 0}}
}

func watchBatch(id, rev uint64, events ...*api.WatchEvent) *api.WatchBatch {
	return &api.WatchBatch{WatchId: id, Revision: rev, Token: watchToken(rev), Events: events}
}

// onBothStreams runs a test with watches of a shared stream and of their own.
func onBothStreams(t *testing.T, test func(*testing.T, []WatchOption)) {
	t.Run("shared", func(t *testing.T) { test(t, nil) })
	t.Run("own", func(t *testing.T) { test(t, []WatchOption{OwnStream()}) })
}

func watchToken(rev uint64) []byte { return fmt.Appendf(nil, "t%d", rev) }

// A stream that breaks in the middle of a revision is gone on with from the last
// whole one, elsewhere, and nothing comes twice.
func TestWatchGoesOn(t *testing.T) { onBothStreams(t, watchGoesOn) }

func watchGoesOn(t *testing.T, on []WatchOption) {
	f := newFakeCluster(t, 3)
	var resumed *api.WatchCreate
	f.script(
		func(ss watchServer) error {
			q, err := opened(ss)
			if err != nil {
				return err
			}
			id := q.GetWatchId()
			part := &api.WatchBatch{WatchId: id, Events: []*api.WatchEvent{putAt(7, "torn")}, Fragment: true}
			err = ss.Send(&api.WatchResponse{Created: []*api.WatchCreated{{WatchId: id, Revision: 4, Token: watchToken(4)}},
				Batches: []*api.WatchBatch{watchBatch(id, 6, putAt(5, "a"), putAt(6, "b")), part}})
			return errors.Join(err, rpcError(statusOf(CodeUnavailable)))
		},
		func(ss watchServer) (err error) {
			if resumed, err = opened(ss); err != nil {
				return err
			}
			id := resumed.GetWatchId()
			err = ss.Send(&api.WatchResponse{Created: []*api.WatchCreated{{WatchId: id, Revision: 6, Token: watchToken(6)}}, Batches: []*api.WatchBatch{
				{WatchId: id, Events: []*api.WatchEvent{putAt(7, "c")}, Fragment: true}, watchBatch(id, 7, putAt(7, "d"))}})
			<-ss.Context().Done()
			return err
		})
	c := f.client(nil)
	var got []string
	for u, err := range c.Watch(t.Context(), append(on, WithPrefix("x"), FromRevision(4), WithPrevious())...) {
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(u.Revision)
		for _, ev := range u.Events {
			text += ev.Record.Key
		}
		if got = append(got, text); u.Revision == 7 {
			break
		}
	}
	if want := "[4 6ab 6 7cd]"; fmt.Sprint(got) != want {
		t.Errorf("updates %v, want %s", got, want)
	}
	if resumed.GetAfterRevision() != 0 || !bytes.Equal(resumed.GetToken(), watchToken(6)) || resumed.GetPrefix() != "x" || !resumed.GetPrevious() {
		t.Errorf("resumed with %v", resumed)
	}
}

// What cannot be repaired by asking again ends the loop.
func TestWatchEndsWithTheReason(t *testing.T) { onBothStreams(t, watchEndsWithTheReason) }

func watchEndsWithTheReason(t *testing.T, on []WatchOption) {
	f := newFakeCluster(t, 1)
	f.script(func(ss watchServer) error {
		q, err := opened(ss)
		if err != nil {
			return err
		}
		err = ss.Send(&api.WatchResponse{Ended: []*api.WatchEnded{{WatchId: q.GetWatchId(), Status: statusOf(CodeOutOfRange, "floor", "99")}}})
		<-ss.Context().Done()
		return err
	})
	c := f.client(nil)
	ends := 0
	for _, err := range c.Watch(t.Context(), append(on, FromRevision(1))...) {
		ends++
		var e *Error
		if !errors.Is(err, ErrOutOfRange) || !errors.As(err, &e) || e.Details["floor"] != "99" {
			t.Errorf("ended with %v", err)
		}
	}
	if ends != 1 {
		t.Errorf("%d errors", ends)
	}
	for _, err := range c.Watch(t.Context(), append(on, Resume("!"))...) {
		if !errors.Is(err, ErrInvalidToken) {
			t.Errorf("a bad token: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Watch(ctx, on...) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a canceled context: %v", err)
		}
	}
}

// A loop that is slow is given what it has room for, and asks for the rest again.
func TestWatchOfASlowLoop(t *testing.T) {
	f := newFakeCluster(t, 1)
	const each, count = 256 << 10, 64
	sent := make(chan struct{})
	f.script(func(ss watchServer) error {
		q, err := opened(ss)
		if err != nil {
			return err
		}
		id := q.GetWatchId()
		for rev := uint64(1); rev <= count && err == nil; rev++ {
			ev := putAt(rev, "k")
			ev.Record.Value = make([]byte, each)
			err = ss.Send(&api.WatchResponse{Batches: []*api.WatchBatch{watchBatch(id, rev, ev)}})
		}
		close(sent)
		<-ss.Context().Done()
		return err
	}, func(ss watchServer) error {
		q, err := opened(ss)
		var from uint64
		if err == nil {
			_, err = fmt.Sscanf(string(q.GetToken()), "t%d", &from)
		}
		for rev := from + 1; rev <= count && err == nil; rev++ {
			err = ss.Send(&api.WatchResponse{Batches: []*api.WatchBatch{watchBatch(q.GetWatchId(), rev, putAt(rev, "k"))}})
		}
		<-ss.Context().Done()
		return err
	})
	c := f.client(nil)
	want := uint64(1)
	for u, err := range c.Watch(t.Context()) {
		if err != nil || u.Revision != want {
			t.Fatalf("update up to %d, %v; want %d", u.Revision, err, want)
		}
		if want == 1 {
			<-sent
		}
		if want++; want > count {
			break
		}
	}
}

// A loop that does not take what comes on its own stream holds up no other stream
// of the connection, and is given everything later.
func TestWatchOfASlowLoopOnItsOwnStream(t *testing.T) {
	f := newFakeCluster(t, 1)
	const each, count = 256 << 10, 128 // twice the window of the connection
	f.script(func(ss watchServer) error {
		q, err := opened(ss)
		for rev := uint64(1); rev <= count && err == nil; rev++ {
			ev := putAt(rev, q.GetKey())
			ev.Record.Value = make([]byte, each)
			err = ss.Send(&api.WatchResponse{Batches: []*api.WatchBatch{watchBatch(q.GetWatchId(), rev, ev)}})
		}
		<-ss.Context().Done()
		return err
	})
	c := f.client(nil)
	takes := func(key string, meanwhile func()) {
		want := uint64(1)
		for u, err := range c.Watch(t.Context(), OwnStream(), OnKey(key)) {
			if err != nil || u.Revision != want || len(u.Events) != 1 || u.Events[0].Record.Key != key || len(u.Events[0].Record.Value) != each {
				t.Fatalf("update up to %d of %d events, %v; want %d", u.Revision, len(u.Events), err, want)
			}
			if want == 1 && meanwhile != nil {
				meanwhile()
			}
			if want++; want > count {
				return
			}
		}
	}
	takes("slow", func() { takes("quick", nil) })
}

// What waits on its own stream ends with its context, and with the client.
func TestWatchOnItsOwnStreamEnds(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.script(func(ss watchServer) error {
		q, err := opened(ss)
		if err == nil {
			err = ss.Send(&api.WatchResponse{Created: []*api.WatchCreated{{WatchId: q.GetWatchId(), Revision: 7, Token: watchToken(7)}}})
		}
		<-ss.Context().Done()
		return err
	})
	c := f.client(nil)
	ctx, cancel := context.WithCancel(t.Context())
	last := func(ctx context.Context, then func()) (end error) {
		for u, err := range c.Watch(ctx, OwnStream()) {
			if end = err; err == nil && u.Revision != 7 {
				t.Errorf("begins at %d", u.Revision)
			}
			if err == nil {
				time.AfterFunc(time.Millisecond, then)
			}
		}
		return end
	}
	if err := last(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if err := last(t.Context(), func() { _ = c.Close() }); !errors.Is(err, ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}
