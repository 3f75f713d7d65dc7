package meta

import (
	"context"
	"fmt"
	"time"

	api "kvstore/api/kvstore/v1"
	envsystem "kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/router"
)

const (
	// rangePage is how many keys are listed at once, between two records of the
	// job's progress; rangeBatch how many are deleted at once. A batch is an entry
	// of each group that has keys of it, and one is under way at a time: what other
	// requests meet in their group's log is one such entry, and the pause after it.
	rangePage  = 8000
	rangeBatch = 2000
	// rangeRest is the part of a batch's time that passes before the next begins.
	rangeRest = 4
	// rangeAttempts bounds how often what a group refused is tried again, before
	// the job begins anew at its cursor.
	rangeAttempts = 5
	countTimeout  = 30 * time.Second
)

// rangeRun is a run of a delete-range.
//
// It goes through the range in pages, each a list of its own that begins at the
// last key of the one before: a job may take longer than history is kept. Of the
// keys that were there when the job began, those that were not written since have
// revisions at or below the job's. These are deleted on condition of that revision,
// so whoever writes a key first keeps it, and a second run, or a repetition of what
// had no answer, finds nothing that it could harm. The cursor is stored after each
// page; whoever leads the metadata next goes on there.
type rangeRun struct {
	s *Service
	j format.JobRecord
	// left counts keys of the page under way that were written meanwhile.
	left uint64
}

// doomed is a key to delete.
type doomed struct {
	key      string
	revision uint64
	// unsure: a deletion of it had no answer, and may have been executed.
	unsure bool
}

func (s *Service) deleteRange(ctx context.Context, j format.JobRecord) error {
	r := &rangeRun{s: s, j: j}
	if err := s.claim(ctx, &r.j); err != nil {
		return err
	}
	err := r.run(ctx)
	switch fault.CodeOf(err) {
	case fault.NamespaceNotFound, fault.NamespaceDeleting, fault.InvalidArgument, fault.PermissionDenied:
		return s.finish(ctx, &r.j, format.JobFailed, err.Error())
	}
	return err
}

func (r *rangeRun) run(ctx context.Context) error {
	if r.j.Total == 0 && r.j.Cursor == "" {
		r.j.Total = r.count(ctx)
	}
	r.j.Message = "deleting keys"
	for {
		if err := r.s.progress(ctx, &r.j); err != nil {
			return err
		}
		if r.j.Cancel {
			return r.s.finish(ctx, &r.j, format.JobCancelled, r.summary())
		}
		more, err := r.page(ctx)
		if err != nil {
			return r.interrupted(ctx, err)
		}
		if !more {
			r.j.Total = r.j.Done
			return r.s.finish(ctx, &r.j, format.JobDone, r.summary())
		}
	}
}

// interrupted says in the record why the job does not go on; it is run again.
func (r *rangeRun) interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		r.j.Message = "tried again after: " + err.Error()
		if err := r.s.progress(ctx, &r.j); err != nil {
			r.s.o.Logger.Debug("a job does not say what keeps it", "job", r.j.ID, "error", err)
		}
	}
	return err
}

// summary says how many keys were kept.
func (r *rangeRun) summary() string {
	if r.j.Left == 0 {
		return ""
	}
	return fmt.Sprintf("%d keys were written after the start and are left", r.j.Left)
}

// count is how many keys there are about; 0 when that takes too long.
func (r *rangeRun) count(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	q := r.request()
	q.CountOnly = true
	page, err := r.s.o.Store.List(ctx, q)
	if err != nil {
		r.s.o.Logger.Debug("the keys of a job are not counted", "job", r.j.ID, "error", err)
	}
	return page.GetCount()
}

func (r *rangeRun) request() *api.ListRequest {
	q := &api.ListRequest{Namespace: r.j.Namespace, Prefix: r.j.Prefix, Start: r.j.Start, End: r.j.End,
		Tags: r.j.Tags, KeysOnly: true, Limit: rangePage}
	if r.j.Cursor != "" {
		q.Start = r.j.Cursor
	}
	return q
}

// page deletes what the next page has; more is false at the end.
func (r *rangeRun) page(ctx context.Context) (more bool, err error) {
	within, cancel := context.WithTimeout(ctx, router.MaxTimeout) // tags may be rare
	page, err := r.s.o.Store.List(within, r.request())
	cancel()
	if err != nil {
		return false, err
	}
	r.left = 0
	keys := make([]doomed, 0, len(page.Records))
	for _, rec := range page.Records {
		switch {
		case rec.Revision <= uint64(r.j.Revision):
			keys = append(keys, doomed{key: rec.Key, revision: rec.Revision})
		case rec.Key != r.j.Cursor:
			r.left++
		}
	}
	if err := r.deleteAll(ctx, keys, rangeBatch); err != nil {
		return false, err
	}
	r.j.Left += r.left
	if n := len(page.Records); n > 0 {
		r.j.Cursor = page.Records[n-1].Key
	}
	return page.ContinuationToken != "", nil
}

// deleteAll deletes keys in batches of a size. Where a key of a batch was written
// meanwhile its group deletes none of the batch; the others are tried again in
// smaller ones.
func (r *rangeRun) deleteAll(ctx context.Context, keys []doomed, size int) error {
	for attempt := 0; len(keys) > 0; attempt++ {
		var aborted, failed []doomed
		var last error
		for len(keys) > 0 {
			n := min(size, len(keys))
			a, f, err := r.deleteBatch(ctx, keys[:n])
			aborted, failed, keys = append(aborted, a...), append(failed, f...), keys[n:]
			if err != nil {
				last = err
			}
		}
		if len(aborted) > 0 {
			if err := r.deleteAll(ctx, aborted, max(1, size/8)); err != nil {
				return err
			}
		}
		if len(failed) > 0 {
			if attempt == rangeAttempts {
				return last
			}
			if err := envsystem.Pause(ctx, 100*time.Millisecond<<attempt); err != nil {
				return err
			}
		}
		keys = failed
	}
	return nil
}

// deleteBatch returns which keys another one kept from being deleted, and which
// failed, with the last failure.
func (r *rangeRun) deleteBatch(ctx context.Context, keys []doomed) (aborted, failed []doomed, last error) {
	batch := &api.BatchDeleteRequest{Namespace: r.j.Namespace}
	for i := range keys {
		batch.Items = append(batch.Items, &api.DeleteRequest{Key: keys[i].key, Condition: &api.Condition{RevisionMatch: &keys[i].revision}})
	}
	began := r.s.o.Clock.Mono()
	resp, err := r.s.o.Store.BatchDelete(ctx, batch)
	if err != nil {
		return nil, unsure(keys), err
	}
	for i, res := range resp.Results {
		switch err := router.StatusError(res.Status); fault.CodeOf(err) {
		case "":
			r.j.Done++
		case fault.ConditionFailed:
			r.kept(keys[i])
		case fault.BatchAborted:
			aborted = append(aborted, keys[i])
		default:
			failed, last = append(failed, unsure(keys[i:i+1])...), err
		}
	}
	if err := envsystem.Pause(ctx, (r.s.o.Clock.Mono()-began)/rangeRest); err != nil {
		last = err
	}
	return aborted, failed, last
}

// kept counts a key whose revision has changed: it was written meanwhile, or
// deleted by what had no answer.
func (r *rangeRun) kept(k doomed) {
	if k.unsure {
		r.j.Done++
		return
	}
	r.left++
}

func unsure(keys []doomed) []doomed {
	for i := range keys {
		keys[i].unsure = true
	}
	return keys
}
