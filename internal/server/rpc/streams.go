package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// PutStream receives one value in parts and writes it.
func (s *Service) PutStream(ss grpc.ClientStreamingServer[api.PutChunk, api.PutResponse]) error {
	first, err := ss.Recv()
	if err != nil {
		return err
	}
	req := first.GetRequest()
	if req == nil {
		return fault.New(fault.InvalidArgument, "the first message must carry the request")
	}
	up := upload{s: s, req: req, size: first.GetSize()}
	defer up.release()
	if err := up.start(ss.Context()); err != nil {
		return err
	}
	if err := up.add(ss.Context(), first.GetData()); err != nil {
		return err
	}
	for {
		part, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := up.add(ss.Context(), part.GetData()); err != nil {
			return err
		}
	}
	if err := up.finish(); err != nil {
		return err
	}
	resp, err := s.Put(ss.Context(), req)
	if err != nil {
		return err
	}
	return ss.SendAndClose(resp)
}

// upload gathers the value of a PutStream. Slots are taken as bytes arrive, so
// that a caller that announces much and sends nothing holds nothing.
type upload struct {
	s     *Service
	req   *api.PutRequest
	size  uint64 // announced, 0 when it was not
	taken int64
	slots int
}

func (u *upload) start(ctx context.Context) error {
	if len(u.req.Value) > 0 {
		return fault.New(fault.InvalidArgument, "the request of a stream carries no value; its bytes follow as data", "key", u.req.Key)
	}
	if err := keyspace.ValidateKey(u.req.Key); err != nil {
		return err
	}
	if err := u.within(u.size); err != nil {
		return err
	}
	if err := u.s.o.Guard.Acquire(ctx, 1, 0); err != nil {
		return err
	}
	u.slots = 1
	return nil
}

func (u *upload) within(size uint64) error {
	if size > keyspace.MaxValueBytes {
		return fault.New(fault.ValueTooLarge, "value is too large",
			"key", u.req.Key, "limit_bytes", keyspace.MaxValueBytes, "actual_bytes", size)
	}
	return nil
}

func (u *upload) add(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	total := uint64(len(u.req.Value) + len(data))
	if err := u.within(total); err != nil {
		return err
	}
	if u.size > 0 && total > u.size {
		return u.sizeError(total)
	}
	if err := u.s.o.Guard.Acquire(ctx, 0, int64(len(data))); err != nil {
		return err
	}
	u.taken += int64(len(data))
	u.req.Value = append(u.req.Value, data...)
	return nil
}

func (u *upload) finish() error {
	if total := uint64(len(u.req.Value)); u.size > 0 && total != u.size {
		return u.sizeError(total)
	}
	return nil
}

func (u *upload) sizeError(actual uint64) error {
	return fault.New(fault.InvalidArgument, "the value's size differs from what was announced",
		"key", u.req.Key, "expected_bytes", u.size, "actual_bytes", actual)
}

func (u *upload) release() { u.s.o.Guard.Release(u.slots, u.taken) }

// GetStream answers with the record, then its value in parts.
func (s *Service) GetStream(q *api.GetRequest, ss grpc.ServerStreamingServer[api.GetChunk]) error {
	if err := s.o.Guard.Acquire(ss.Context(), 1, 0); err != nil {
		return err
	}
	defer s.o.Guard.Release(1, 0)
	resp, err := s.get(ss.Context(), q, false)
	if err != nil {
		return err
	}
	value := resp.GetRecord().GetValue()
	if resp.Record != nil {
		resp.Record.Value = nil
	}
	if err := ss.Send(&api.GetChunk{Response: resp}); err != nil {
		return err
	}
	for len(value) > 0 {
		n := min(len(value), s.o.ChunkBytes)
		if err := ss.Send(&api.GetChunk{Data: value[:n]}); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}

// ListStream answers with all pages of one snapshot. A slot is held while a
// page is read, not while it is sent: how fast the caller reads is its affair,
// and one page is in memory at a time.
func (s *Service) ListStream(q *api.ListRequest, ss grpc.ServerStreamingServer[api.ListResponse]) error {
	ctx, g := ss.Context(), s.o.Guard
	if err := g.Acquire(ctx, 1, 0); err != nil {
		return err
	}
	held := true
	defer func() {
		if held {
			g.Release(1, 0)
		}
	}()
	return s.b.ListStreamEncoded(ctx, q, func(page *api.ListResponse) error {
		g.Release(1, 0)
		held = false
		if err := ss.Send(page); err != nil {
			return err
		}
		if err := g.Acquire(ctx, 1, 0); err != nil {
			return err
		}
		held = true
		return nil
	})
}
