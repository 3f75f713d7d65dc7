package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"

	api "kvstore/api/kvstore/v1"
	envsystem "kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// runner holds the one job that runs on this node.
type runner struct {
	mu     sync.Mutex
	id     string // "" when none runs
	cancel context.CancelFunc
}

func (r *runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

// runs is the job that runs here, "" for none.
func (r *runner) runs() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id
}

// keepJobs runs the oldest job while this node leads the meta group, stops it
// when it does not, and forgets jobs that finished long ago. All of a job's
// progress is in its record, so the next leader continues it.
func (s *Service) keepJobs(ctx context.Context) {
	if !s.leads() {
		s.job.end()
		return
	}
	st := s.dir.current.Load()
	for _, j := range st.jobsBy(true) {
		if j.Cancel && s.job.runs() != j.ID {
			s.endCancelled(ctx, j)
		}
	}
	for _, j := range st.jobsBy(true) {
		if run, ok := s.jobKinds()[j.Kind]; ok && !j.Cancel {
			s.startJob(ctx, j, run)
			break
		}
		// A kind of a newer version waits for a leader that knows it.
	}
	finished := st.jobsBy(false)
	for _, j := range finished[:max(0, len(finished)-keptJobs)] {
		_, err := s.o.Store.Delete(ctx, &api.DeleteRequest{
			Namespace: keyspace.SystemNamespaceName, Key: format.SystemJobKey(j.ID),
		})
		if err != nil {
			s.o.Logger.Debug("an old job is not forgotten yet", "job", j.ID, "error", err)
			return
		}
	}
}

// jobKinds are the kinds of jobs this version runs.
func (s *Service) jobKinds() map[string]func(context.Context, format.JobRecord) error {
	return map[string]func(context.Context, format.JobRecord) error{
		format.JobDeleteNamespace: s.deleteNamespace,
		format.JobDeleteRange:     s.deleteRange,
	}
}

// startJob runs j in the background unless a job runs already.
func (s *Service) startJob(ctx context.Context, j format.JobRecord, run func(context.Context, format.JobRecord) error) {
	s.job.mu.Lock()
	defer s.job.mu.Unlock()
	if s.job.id != "" {
		return
	}
	// Not the round's context: the job outlives it, until end.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.job.id, s.job.cancel = j.ID, cancel
	s.wg.Add(1) // the loop holds wg
	go func() {
		defer s.wg.Done()
		defer s.jobEnded(cancel)
		err := run(ctx, j)
		switch {
		case err == nil:
			s.o.Logger.Info("job has ended", "job", j.ID, "kind", j.Kind, "namespace", j.Namespace)
		case ctx.Err() == nil:
			s.o.Logger.Warn("job is interrupted and will be continued", "job", j.ID, "kind", j.Kind, "error", err)
		}
	}()
}

func (s *Service) jobEnded(cancel context.CancelFunc) {
	cancel()
	s.job.mu.Lock()
	defer s.job.mu.Unlock()
	s.job.id, s.job.cancel = "", nil
}

// deleteNamespace deletes all keys of a namespace, then its name. It first
// waits until no node can still resolve the name.
func (s *Service) deleteNamespace(ctx context.Context, j format.JobRecord) error {
	named, err := s.namespaceOf(ctx, j)
	if err != nil {
		return err
	}
	if named {
		j.Message = "waiting until no node uses the namespace"
		if err := s.progress(ctx, &j); err != nil {
			return err
		}
		if err := envsystem.Pause(ctx, deletionWait); err != nil {
			return err
		}
		if err := s.deleteKeys(ctx, &j); err != nil {
			return err
		}
		if err := s.deleteName(ctx, j); err != nil {
			return err
		}
	}
	j.Total = j.Done
	return s.finish(ctx, &j, format.JobDone, "")
}

// namespaceOf reports whether the job's namespace still has its name; it has
// not when an earlier leader ended between the last two steps.
func (s *Service) namespaceOf(ctx context.Context, j format.JobRecord) (bool, error) {
	n, ok, err := get[format.NamespaceRecord](ctx, s, format.SystemNamespaceKey(j.Namespace))
	return ok && n.record.ID == j.NamespaceID && n.record.Job == j.ID, err
}

// deleteKeys makes passes over the namespace until one finds nothing. A pass
// is one snapshot; keys written while it ran are found by the next.
func (s *Service) deleteKeys(ctx context.Context, j *format.JobRecord) error {
	req := &api.ListRequest{Namespace: j.Namespace, KeysOnly: true, CountOnly: true, Consistency: api.Consistency_CONSISTENCY_SNAPSHOT}
	page, err := s.o.Store.List(ctx, req)
	if err != nil {
		return err
	}
	j.Total, j.Message = j.Done+page.Count, "deleting keys"
	for {
		before := j.Done
		if err := s.deletePass(ctx, j); err != nil {
			return err
		}
		if j.Done == before {
			return nil
		}
	}
}

func (s *Service) deletePass(ctx context.Context, j *format.JobRecord) error {
	req := &api.ListRequest{Namespace: j.Namespace, KeysOnly: true, Consistency: api.Consistency_CONSISTENCY_SNAPSHOT}
	for {
		page, err := s.o.Store.List(ctx, req)
		if err != nil {
			return err
		}
		if len(page.Records) > 0 {
			if err := s.deletePage(ctx, j, page.Records); err != nil {
				return err
			}
		}
		if page.ContinuationToken == "" {
			return nil
		}
		req = &api.ListRequest{Namespace: j.Namespace, KeysOnly: true, Consistency: api.Consistency_CONSISTENCY_SNAPSHOT, ContinuationToken: page.ContinuationToken}
	}
}

func (s *Service) deletePage(ctx context.Context, j *format.JobRecord, records []*api.Record) error {
	batch := &api.BatchDeleteRequest{Namespace: j.Namespace}
	for _, r := range records {
		batch.Items = append(batch.Items, &api.DeleteRequest{Key: r.Key})
	}
	resp, err := s.o.Store.BatchDelete(ctx, batch)
	if err != nil {
		return err
	}
	var failed error
	for _, r := range resp.Results {
		if err := router.StatusError(r.Status); err != nil {
			failed = err
			continue
		}
		j.Done++
	}
	j.Total = max(j.Total, j.Done)
	return errors.Join(failed, s.progress(ctx, j))
}

// deleteName frees the name; the id stays used for ever.
func (s *Service) deleteName(ctx context.Context, j format.JobRecord) error {
	n, ok, err := get[format.NamespaceRecord](ctx, s, format.SystemNamespaceKey(j.Namespace))
	if err != nil || !ok || n.record.Job != j.ID {
		return err
	}
	_, err = s.o.Store.Delete(ctx, &api.DeleteRequest{
		Namespace: keyspace.SystemNamespaceName, Key: format.SystemNamespaceKey(j.Namespace), Condition: atVersion(n.version),
	})
	return err
}

// claim makes this run the only one that may write the record of j, and reads how
// far the one before came.
func (s *Service) claim(ctx context.Context, j *format.JobRecord) error {
	runner := fmt.Sprintf("%016x", s.o.Rand.Uint64())
	for range maxRaces {
		old, ok, err := get[format.JobRecord](ctx, s, format.SystemJobKey(j.ID))
		switch {
		case err != nil:
			return err
		case !ok || old.record.State != format.JobRunning:
			return errFinished(j.ID)
		}
		*j = old.record
		j.Runner = runner
		err = s.put(ctx, format.SystemJobKey(j.ID), j, atVersion(old.version))
		if fault.CodeOf(err) != fault.ConditionFailed {
			return err
		}
	}
	return errRaces("job", j.ID)
}

// progress stores the job, and takes from what is stored whether it is to end. A
// record that is finished, gone or of another run belongs to another leader.
func (s *Service) progress(ctx context.Context, j *format.JobRecord) error {
	for range maxRaces {
		old, ok, err := get[format.JobRecord](ctx, s, format.SystemJobKey(j.ID))
		if err != nil {
			return err
		}
		if !ok || old.record.State != format.JobRunning || old.record.Runner != j.Runner {
			return errFinished(j.ID)
		}
		j.Cancel = old.record.Cancel
		err = s.put(ctx, format.SystemJobKey(j.ID), j, atVersion(old.version))
		if fault.CodeOf(err) != fault.ConditionFailed {
			return err
		}
	}
	return errRaces("job", j.ID)
}

// finish stores how the job ended.
func (s *Service) finish(ctx context.Context, j *format.JobRecord, state, message string) error {
	j.State, j.Message, j.Finished = state, message, s.o.Clock.Wall()
	return s.progress(ctx, j)
}

func errFinished(id string) error {
	return fmt.Errorf("job %s was finished or continued elsewhere: %w", id, context.Canceled)
}
