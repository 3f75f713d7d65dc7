package memserver

import (
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
)

// kept are the versions of a key, oldest first.
type kept map[string][]*api.KeyVersion

func (k kept) put(rec *api.Record) {
	k[rec.GetKey()] = append(k[rec.GetKey()], &api.KeyVersion{Record: rec})
}

func (k kept) delete(key string, rev uint64) {
	k[key] = append(k[key], &api.KeyVersion{Deleted: true, Reason: "deleted",
		Record: &api.Record{Key: key, Revision: rev, UpdatedAtMs: milli(rev)}})
}

// at is the record that a key had at a revision, nil for none.
func (k kept) at(key string, rev uint64) (found *api.Record) {
	for _, v := range k[key] {
		if v.GetRecord().GetRevision() <= rev {
			if found = v.GetRecord(); v.GetDeleted() {
				found = nil
			}
		}
	}
	return found
}

// moment is the revision that a request names, 0 for none.
func (s *Server) moment(rev uint64, ms int64) (uint64, error) {
	if ms < 0 {
		ms += milli(s.revision)
	}
	if ms != 0 {
		rev = uint64(ms+1)<<16 - 1
	}
	switch {
	case milli(rev) > milli(s.revision):
		return 0, Errorf("out_of_range", "the revision lies in the future", "limit", utoa(s.revision), "actual", utoa(rev))
	case rev != 0 && rev < firstRevision:
		return 0, Errorf("out_of_range", "the revision is older than the history that is kept", "floor", utoa(firstRevision), "revision", utoa(rev))
	}
	return rev, nil
}

// History is the service's method.
func (s *Server) History(_ context.Context, r *api.HistoryRequest) (*api.HistoryResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("get", r.GetKey()); err != nil {
		return nil, err
	}
	out := &api.HistoryResponse{Floor: firstRevision}
	for _, v := range slices.Backward(sp.kept[r.GetKey()]) {
		rev := v.GetRecord().GetRevision()
		switch {
		case r.GetUntilRevision() != 0 && rev > r.GetUntilRevision():
		case r.GetLimit() != 0 && len(out.Versions) == int(r.GetLimit()):
			out.NextRevision = rev
			return out, nil
		default:
			out.Versions = append(out.Versions, &api.KeyVersion{Record: view(v.GetRecord(), r.GetKeysOnly()), Deleted: v.GetDeleted(), Reason: v.GetReason()})
		}
	}
	return out, nil
}
