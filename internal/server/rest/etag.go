package rest

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// An entity tag names one revision of a key in one representation: the raw
// value, or the JSON envelope (suffix -j), which HTTP counts as another entity.
// Revisions never repeat, so a key that was deleted and made again does not
// match a tag of its earlier life. Clients must treat tags as opaque.

func etag(revision uint64, envelope bool) string {
	tag := `"` + strconv.FormatUint(revision, 36)
	if envelope {
		tag += "-j"
	}
	return tag + `"`
}

// tagList is an If-Match or If-None-Match header.
type tagList struct {
	present bool
	any     bool // "*"
	tags    []entityTag
}

type entityTag struct {
	weak     bool
	envelope bool
	// revision is 0 for a tag that is not ours; it matches nothing.
	revision uint64
}

// parseTags reads a list of entity tags from all lines of a header.
func parseTags(h http.Header, name string) (tagList, error) {
	lines := h.Values(name)
	if len(lines) == 0 {
		return tagList{}, nil
	}
	l := tagList{present: true}
	rest := strings.TrimSpace(strings.Join(lines, ","))
	if rest == "*" {
		l.any = true
		return l, nil
	}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		var t entityTag
		rest, t.weak = strings.CutPrefix(rest, "W/")
		if !strings.HasPrefix(rest, `"`) {
			return l, badTag(name, h)
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return l, badTag(name, h)
		}
		t.read(rest[1 : 1+end])
		l.tags = append(l.tags, t)
		rest = strings.TrimLeft(rest[end+2:], " \t")
		if rest != "" && rest[0] != ',' {
			return l, badTag(name, h)
		}
	}
	if len(l.tags) == 0 {
		return l, badTag(name, h)
	}
	return l, nil
}

func (t *entityTag) read(opaque string) {
	opaque, t.envelope = strings.CutSuffix(opaque, "-j")
	if n, err := strconv.ParseUint(opaque, 36, 64); err == nil && strconv.FormatUint(n, 36) == opaque {
		t.revision = n
	}
}

func badTag(name string, h http.Header) error {
	return fault.New(fault.InvalidArgument, name+` must be * or a list of quoted entity tags ("...")`,
		"header", name, "actual", clip(strings.Join(h.Values(name), ", ")))
}

// holds compares for a read: the representation counts; weak tags match only
// where the comparison is weak (If-None-Match).
func (l tagList) holds(revision uint64, envelope, weak bool) bool {
	if l.any {
		return true
	}
	for _, t := range l.tags {
		if t.revision != 0 && t.revision == revision && t.envelope == envelope && (weak || !t.weak) {
			return true
		}
	}
	return false
}

// revisions returns the revisions that a write may replace under l.
func (l tagList) revisions() []uint64 {
	var all []uint64
	for _, t := range l.tags {
		if t.revision != 0 && !t.weak {
			all = append(all, t.revision)
		}
	}
	return all
}

// writeCondition joins the conditions of the query and of the headers; nil
// when there are none.
func (s *Server) writeCondition(q *request, key string) (*api.Condition, error) {
	c, err := q.query.condition()
	if err != nil {
		return nil, err
	}
	if q.r.Header.Get("If-Unmodified-Since") != "" {
		return nil, fault.New(fault.InvalidArgument, "If-Unmodified-Since is not supported; use If-Match", "header", "If-Unmodified-Since")
	}
	none, err := parseTags(q.r.Header, "If-None-Match")
	if err != nil {
		return nil, err
	}
	match, err := parseTags(q.r.Header, "If-Match")
	if err != nil {
		return nil, err
	}
	if (none.present || match.present) && c == nil {
		c = &api.Condition{}
	}
	if none.present {
		if !none.any {
			return nil, fault.New(fault.InvalidArgument, "If-None-Match on a write takes * only", "header", "If-None-Match")
		}
		c.MustNotExist = true
	}
	if match.any {
		c.MustExist = true
	}
	if match.present && !match.any {
		return c, s.matchOne(q.ctx(), q.query.text("namespace"), key, c, match.revisions())
	}
	return c, nil
}

// matchOne makes an If-Match of entity tags a condition on the revision. Of
// several tags it takes the one that is current now: should the key change
// before the write, its new revision is in no list made before.
func (s *Server) matchOne(ctx context.Context, namespace, key string, c *api.Condition, revisions []uint64) error {
	if len(revisions) > 1 {
		current, err := s.current(ctx, namespace, key)
		if err != nil {
			return err
		}
		for _, r := range revisions {
			if r == current {
				revisions = []uint64{r}
				break
			}
		}
		if len(revisions) != 1 {
			revisions = nil
		}
	}
	if len(revisions) == 0 {
		return preconditionFailed(key, "If-Match names no current revision")
	}
	if c.RevisionMatch != nil && *c.RevisionMatch != revisions[0] {
		return preconditionFailed(key, "If-Match and revision_match name different revisions")
	}
	c.RevisionMatch = &revisions[0]
	return nil
}

// current returns the revision of a key, 0 when it is not there.
func (s *Server) current(ctx context.Context, namespace, key string) (uint64, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Namespace: namespace, Key: key, KeysOnly: true}}})
	if errors.Is(err, notFound) {
		return 0, nil
	}
	return res.GetGet().GetRecord().GetRevision(), err
}

var notFound = &fault.Error{Code: fault.NotFound}

func preconditionFailed(key, message string) error {
	return fault.New(fault.ConditionFailed, message, "key", key)
}
