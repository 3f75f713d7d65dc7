package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/router"
	"kvstore/internal/watch"
)

// Watch carries many watches over one stream. The reader opens and closes
// watches; another goroutine sends what they are told. The handler waits for
// both: it must be able to end a stream whose client does not read, where
// sending does not return before the handler has.
func (s *Service) Watch(ss grpc.BidiStreamingServer[api.WatchRequest, api.WatchResponse]) error {
	if s.o.Watches == nil {
		return fault.New(fault.Unsupported, "this server has no watches")
	}
	if !s.hold() {
		return errDraining()
	}
	st, err := s.o.Watches.Open(ss.Context())
	if err != nil {
		s.readers.Done()
		return err
	}
	w := &watcher{s: s, stream: st, ended: make(chan error, 2)}
	ctx := router.WithIdentity(ss.Context(), guard.Identity(ss.Context()))
	go func() {
		defer s.readers.Done()
		defer st.Close()
		w.ended <- w.run("reading", func() error { return w.read(ctx, ss) })
	}()
	if !s.hold() {
		return errDraining()
	}
	go func() {
		defer s.readers.Done()
		w.ended <- w.run("sending", func() error { return w.send(ss) })
	}()
	select {
	case err := <-w.ended:
		return err
	case <-st.Done():
		return st.Cause()
	}
}

// watcher is one stream; its goroutines end when the handler has returned.
type watcher struct {
	s      *Service
	stream *watch.Stream
	ended  chan error
}

// run turns a panic into an error.
func (w *watcher) run(_ string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = w.s.o.Guard.Recovered("Watch", r)
		}
	}()
	return f()
}

func (w *watcher) read(ctx context.Context, ss grpc.BidiStreamingServer[api.WatchRequest, api.WatchResponse]) error {
	for {
		req, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := req.GetRequest().(type) {
		case *api.WatchRequest_Create:
			w.stream.Create(ctx, r.Create)
		case *api.WatchRequest_Cancel:
			w.stream.Cancel(r.Cancel.GetWatchId())
		default:
			return fault.New(fault.InvalidArgument, "a request of a watch stream creates or cancels a watch")
		}
	}
}

func (w *watcher) send(ss grpc.BidiStreamingServer[api.WatchRequest, api.WatchResponse]) error {
	for {
		m, err := w.stream.Next()
		if err != nil {
			return err
		}
		if err := ss.SendMsg(m); err != nil {
			return err
		}
	}
}
