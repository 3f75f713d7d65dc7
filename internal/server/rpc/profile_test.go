package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/pprof/profile"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/profiling"
	"kvstore/internal/server/status"
)

// record asks for a profile and returns its bytes and first message.
func (f *fixture) record(ctx context.Context, kind string, ms int64) ([]byte, *api.ProfileChunk, error) {
	stream, err := f.client.Profile(ctx, &api.ProfileRequest{Type: kind, DurationMs: ms})
	if err != nil {
		return nil, nil, err
	}
	var data bytes.Buffer
	var head *api.ProfileChunk
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data.Bytes(), head, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if head == nil {
			head = chunk
		}
		data.Write(chunk.Data)
	}
}

func TestProfileComesInParts(t *testing.T) {
	// A guard without a free slot: profiles need none.
	f := newFixture(t, guard.Options{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 1}, Options{Profiles: profiling.New(true), ChunkBytes: 100})
	if err := f.service.o.Guard.Acquire(t.Context(), 1, 0); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{profiling.CPU, profiling.Heap} {
		data, head, err := f.record(t.Context(), kind, 20)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if head.Size != uint64(len(data)) || len(head.Data) != 100 {
			t.Errorf("%s: announced %d bytes, got %d, %d of them first", kind, head.Size, len(data), len(head.Data))
		}
		if _, err := profile.ParseData(data); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestProfileRefusals(t *testing.T) {
	on := newFixture(t, guard.Options{}, Options{Profiles: profiling.New(true)})
	off := newFixture(t, guard.Options{}, Options{Profiles: profiling.New(false)})
	none := newFixture(t, guard.Options{}, Options{})
	for _, c := range []struct {
		f    *fixture
		kind string
		ms   int64
		want fault.Code
	}{
		{on, "x", 10, fault.InvalidArgument},
		{on, profiling.CPU, 60_001, fault.InvalidArgument},
		{off, profiling.CPU, 10, fault.PermissionDenied},
		{none, profiling.CPU, 10, fault.Unsupported},
	} {
		if _, _, err := c.f.record(t.Context(), c.kind, c.ms); status.CodeOf(err) != c.want {
			t.Errorf("%s for %d ms: %v, want %s", c.kind, c.ms, err, c.want)
		}
	}
}

// TestOneProfileAtATime: a second one is refused while the first runs, and the
// first ends when the node stops.
func TestOneProfileAtATime(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{Profiles: profiling.New(true)})
	first := make(chan error, 1)
	go func() {
		for {
			_, _, err := f.record(t.Context(), profiling.CPU, 60_000)
			if status.CodeOf(err) != fault.FailedPrecondition { // it met one of those below
				first <- err
				return
			}
		}
	}()
	var refused error
	for refused == nil {
		_, _, refused = f.record(t.Context(), profiling.Goroutine, 0)
	}
	got := status.Fault(refused)
	if got.Code != fault.FailedPrecondition || got.Details["running"] != profiling.CPU {
		t.Errorf("beside another: %v", refused)
	}
	f.service.Drain()
	if err := <-first; status.CodeOf(err) != fault.Unavailable {
		t.Errorf("ended with the service: %v", err)
	}
}
