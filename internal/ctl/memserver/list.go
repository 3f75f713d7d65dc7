package memserver

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// List is the service's method. A continuation token is the key to go on
// after; pages are not one snapshot.
func (s *Server) List(_ context.Context, r *api.ListRequest) (*api.ListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := s.admit("list", r.GetPrefix()); err != nil {
		return nil, err
	}
	out := &api.ListResponse{Revision: s.revision, Consistency: r.GetConsistency(), AgeMs: r.GetMaxStalenessMs()}
	at, err := s.moment(r.GetAtRevision(), r.GetAtTimeMs())
	if err != nil {
		return nil, err
	}
	if at != 0 {
		sp, out.Revision = sp.then(at), at
	}
	keys := matching(sp, r)
	if r.GetCountOnly() {
		out.Count = uint64(len(keys))
		return out, nil
	}
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = 1000
	}
	for i, k := range keys {
		if i == limit {
			out.ContinuationToken = keys[i-1]
			break
		}
		out.Records = append(out.Records, view(sp.records[k], r.GetKeysOnly()))
	}
	return out, nil
}

// then is what a namespace had at a revision.
func (sp *space) then(rev uint64) *space {
	past := &space{info: sp.info, records: map[string]*api.Record{}}
	for key := range sp.kept {
		if rec := sp.kept.at(key, rev); rec != nil {
			past.records[key] = rec
		}
	}
	return past
}

// matching returns the keys a request asks for, in its order.
func matching(sp *space, r *api.ListRequest) []string {
	var keys []string
	for k, rec := range sp.records {
		after := r.GetContinuationToken()
		switch {
		case !strings.HasPrefix(k, r.GetPrefix()), k < r.GetStart(), r.GetEnd() != "" && k >= r.GetEnd():
		case after != "" && !r.GetReverse() && k <= after, after != "" && r.GetReverse() && k >= after:
		case !hasTags(rec, r.GetTags()):
		default:
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if r.GetReverse() {
		slices.Reverse(keys)
	}
	return keys
}

func hasTags(rec *api.Record, tags map[string]string) bool {
	for name, value := range tags {
		if got, ok := rec.GetTags()[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// ListStream is the service's method.
func (s *Server) ListStream(r *api.ListRequest, stream grpc.ServerStreamingServer[api.ListResponse]) error {
	for {
		page, err := s.List(stream.Context(), r)
		if err != nil {
			return err
		}
		if err := stream.Send(page); err != nil {
			return err
		}
		if page.GetContinuationToken() == "" {
			return nil
		}
		r.ContinuationToken = page.GetContinuationToken()
	}
}
