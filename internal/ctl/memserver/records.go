package memserver

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

func itoa(n int) string { return strconv.Itoa(n) }

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// Put is the service's method.
func (s *Server) Put(_ context.Context, r *api.PutRequest) (*api.PutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(r)
}

func (s *Server) put(r *api.PutRequest) (*api.PutResponse, error) {
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("put", r.GetKey()); err != nil {
		return nil, err
	}
	if n := len(r.GetValue()); n > maxValueBytes {
		return nil, Errorf("value_too_large", "value is too large", "limit", itoa(maxValueBytes), "actual", itoa(n))
	}
	sum := crc32.Checksum(r.GetValue(), castagnoli)
	if r.Checksum != nil && r.GetChecksum() != sum {
		return nil, Errorf("checksum_mismatch", "value has another checksum")
	}
	old := sp.records[r.GetKey()]
	if err := check(old, r.GetCondition()); err != nil {
		return nil, err
	}
	rev := s.next()
	if at := r.GetExpiresAtMs(); at != 0 && at <= milli(rev) {
		return nil, Errorf("invalid_argument", "the key would have expired already", "group_time_ms", strconv.FormatInt(milli(rev), 10))
	}
	rec := &api.Record{
		Key: r.GetKey(), Value: bytes.Clone(r.GetValue()), ContentType: r.GetContentType(), Encoding: r.GetEncoding(),
		Checksum: sum, CreatedAtMs: milli(rev), UpdatedAtMs: milli(rev), ExpiresAtMs: r.GetExpiresAtMs(),
		Version: 1, Revision: rev, Tags: r.GetTags(), Metadata: r.GetMetadata(), Size: uint64(len(r.GetValue())),
	}
	if r.GetTtlSeconds() > 0 {
		rec.ExpiresAtMs = rec.GetUpdatedAtMs() + r.GetTtlSeconds()*1000
	}
	if old != nil {
		rec.Version, rec.CreatedAtMs = old.GetVersion()+1, old.GetCreatedAtMs()
	}
	sp.records[r.GetKey()] = rec
	sp.kept.put(rec)
	return &api.PutResponse{
		Version: rec.GetVersion(), Revision: rev, CreatedAtMs: rec.GetCreatedAtMs(), UpdatedAtMs: rec.GetUpdatedAtMs(),
		ExpiresAtMs: rec.GetExpiresAtMs(), Checksum: sum,
	}, nil
}

// Touch is the service's method.
func (s *Server) Touch(_ context.Context, r *api.TouchRequest) (*api.PutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.touch(r)
}

func (s *Server) touch(r *api.TouchRequest) (*api.PutResponse, error) {
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("touch", r.GetKey()); err != nil {
		return nil, err
	}
	old := sp.records[r.GetKey()]
	if err := checkTouch(old, r); err != nil {
		return nil, err
	}
	rec := proto.CloneOf(old)
	rec.Version, rec.Revision, rec.ExpiresAtMs = old.GetVersion()+1, s.next(), r.GetExpiresAtMs()
	rec.UpdatedAtMs = milli(rec.GetRevision())
	if r.GetTtlSeconds() > 0 {
		rec.ExpiresAtMs = rec.GetUpdatedAtMs() + r.GetTtlSeconds()*1000
	}
	sp.records[r.GetKey()] = rec
	return &api.PutResponse{
		Version: rec.GetVersion(), Revision: rec.GetRevision(), CreatedAtMs: rec.GetCreatedAtMs(), UpdatedAtMs: rec.GetUpdatedAtMs(),
		ExpiresAtMs: rec.GetExpiresAtMs(), Checksum: rec.GetChecksum(),
	}, nil
}

// checkTouch is check for a touch, which needs a record.
func checkTouch(old *api.Record, r *api.TouchRequest) error {
	if err := check(old, &api.Condition{MustExist: true}); err != nil {
		return err
	}
	return check(old, r.GetCondition())
}

// check evaluates a condition against the current record, nil for none.
func check(old *api.Record, c *api.Condition) error {
	if c == nil {
		return nil
	}
	failed := func(what, actual string) error {
		return Errorf("condition_failed", "condition does not hold", "condition", what, "actual", actual)
	}
	switch {
	case c.VersionMatch != nil && c.GetVersionMatch() != old.GetVersion():
		return failed("version_match", strconv.FormatUint(old.GetVersion(), 10))
	case c.RevisionMatch != nil && c.GetRevisionMatch() != old.GetRevision():
		return failed("revision_match", strconv.FormatUint(old.GetRevision(), 10))
	case c.GetMustExist() && old == nil:
		return failed("must_exist", "absent")
	case c.GetMustNotExist() && old != nil:
		return failed("must_not_exist", "present")
	case c.ValueEquals != nil && (old == nil || !bytes.Equal(old.GetValue(), c.GetValueEquals())):
		return failed("value_equals", "different")
	}
	return nil
}

// Get is the service's method.
func (s *Server) Get(_ context.Context, r *api.GetRequest) (*api.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(r)
}

func (s *Server) get(r *api.GetRequest) (*api.GetResponse, error) {
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("get", r.GetKey()); err != nil {
		return nil, err
	}
	rec, rev := sp.records[r.GetKey()], s.revision
	at, err := s.moment(r.GetAtRevision(), r.GetAtTimeMs())
	if err != nil {
		return nil, err
	}
	if at != 0 {
		rec, rev = sp.kept.at(r.GetKey(), at), at
	}
	if rec == nil {
		return nil, Errorf("not_found", "key does not exist", "key", r.GetKey())
	}
	return &api.GetResponse{Record: view(rec, r.GetKeysOnly()), Consistency: r.GetConsistency(), ReadRevision: rev}, nil
}

// view copies a record, without its value for keysOnly.
func view(rec *api.Record, keysOnly bool) *api.Record {
	out := proto.CloneOf(rec)
	if keysOnly {
		out.Value = nil
	}
	return out
}

// Delete is the service's method.
func (s *Server) Delete(_ context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delete(r)
}

func (s *Server) delete(r *api.DeleteRequest) (*api.DeleteResponse, error) {
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("delete", r.GetKey()); err != nil {
		return nil, err
	}
	old := sp.records[r.GetKey()]
	if err := check(old, r.GetCondition()); err != nil {
		return nil, err
	}
	if old == nil {
		return &api.DeleteResponse{}, nil
	}
	delete(sp.records, r.GetKey())
	rev := s.next()
	sp.kept.delete(r.GetKey(), rev)
	return &api.DeleteResponse{Existed: true, Revision: rev}, nil
}

// PutStream is the service's method.
func (s *Server) PutStream(stream grpc.ClientStreamingServer[api.PutChunk, api.PutResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	req := first.GetRequest()
	req.Value = first.GetData()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(req.GetValue())+len(chunk.GetData()) > maxValueBytes {
			return Errorf("value_too_large", "value is too large", "limit", itoa(maxValueBytes), "actual", strconv.FormatUint(first.GetSize(), 10))
		}
		req.Value = append(req.Value, chunk.GetData()...)
	}
	res, err := s.Put(stream.Context(), req)
	if err != nil {
		return err
	}
	return stream.SendAndClose(res)
}

// GetStream is the service's method.
func (s *Server) GetStream(r *api.GetRequest, stream grpc.ServerStreamingServer[api.GetChunk]) error {
	res, err := s.Get(stream.Context(), r)
	if err != nil {
		return err
	}
	value := res.GetRecord().GetValue()
	res.Record.Value = nil
	if err := stream.Send(&api.GetChunk{Response: res}); err != nil {
		return err
	}
	for len(value) > 0 {
		n := min(len(value), 1<<20)
		if err := stream.Send(&api.GetChunk{Data: value[:n]}); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}
