package meta

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

func deleteRange(t *testing.T, f *fixture, q *api.DeleteRangeRequest) *api.Job {
	t.Helper()
	job, err := f.DeleteRange(t.Context(), q)
	wantCode(t, err, "")
	if job.State != format.JobRunning || job.Kind != format.JobDeleteRange {
		t.Fatalf("job %v", job)
	}
	return job
}

// What existed at the start goes, what is outside or was written later stays.
func TestDeleteRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		fill(f.store, "default", 450)
		fill(f.store, "other", 5)
		job := deleteRange(t, f, &api.DeleteRangeRequest{Namespace: "default", Start: "k0010", End: "k0440"})
		put := func(key string) { _, _ = f.store.Put(t.Context(), &api.PutRequest{Namespace: "default", Key: key}) }
		put("k0100")     // before the job begins
		put("k0100-new") // as above
		f.store.mu.Lock()
		f.store.deleting = func() { // between the list and the deletion
			f.store.deleting = nil
			f.store.write("default/k0050", &api.PutRequest{Key: "k0050"})
		}
		f.store.mu.Unlock()
		done := await(t, f, job.Id, format.JobDone)
		if done.Done != 428 || done.Total != 428 || done.FinishedAtMs == 0 || !strings.Contains(done.Message, "3 keys") {
			t.Fatalf("job %v", done)
		}
		var left []string
		f.store.mu.Lock()
		for k := range f.store.data {
			if key, ok := strings.CutPrefix(k, "default/"); ok && within(key, &api.ListRequest{Start: "k0010", End: "k0440"}) {
				left = append(left, key)
			}
		}
		f.store.mu.Unlock()
		if len(left) != 3 || f.store.count("default") != 23 || f.store.count("other") != 5 {
			t.Fatalf("left in the range: %v, in all %d and %d", left, f.store.count("default"), f.store.count("other"))
		}
	})
}

// The leader changes in the middle, and the answer to a deletion is lost: the next
// leader goes on at the cursor, and counts nothing twice.
func TestDeleteRangeSurvivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		a, b := newFixture(t, store), newFixture(t, store)
		b.host.lead(false)
		fill(store, "default", 350)
		store.mu.Lock()
		lost := 0
		store.deleted = func(out *api.BatchDeleteResponse) (*api.BatchDeleteResponse, error) {
			if lost++; lost == 2 {
				return nil, fault.New(fault.UnknownOutcome, "the answer is lost")
			}
			if _, leads, _ := b.host.Leader(0); lost >= 3 && !leads {
				a.host.lead(false)
				return nil, fault.New(fault.Unavailable, "the leader is gone")
			}
			return out, nil
		}
		store.mu.Unlock()
		job := deleteRange(t, a, &api.DeleteRangeRequest{Prefix: "k"})
		for range 200 {
			<-time.After(100 * time.Millisecond)
		}
		mid, err := b.DescribeJob(t.Context(), &api.DescribeJobRequest{Id: job.Id})
		wantCode(t, err, "")
		if mid.State != format.JobRunning || mid.Done == 0 || mid.Done == 350 || mid.Total != 350 {
			t.Fatalf("job without a leader: %v", mid)
		}
		b.host.lead(true)
		done := await(t, b, job.Id, format.JobDone)
		// What the first leader deleted without storing it is not counted.
		if done.Done < 250 || done.Done > 350 || done.Total != done.Done || store.count("default") != 0 {
			t.Fatalf("job %v, %d keys left", done, store.count("default"))
		}
	})
}

// A cancelled job ends within a page and says so; one that waits ends without
// having begun; one that has ended cannot be cancelled.
func TestCancelJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		fill(f.store, "default", 900)
		f.store.mu.Lock()
		deletions := 0
		reached := make(chan struct{})
		f.store.deleted = func(out *api.BatchDeleteResponse) (*api.BatchDeleteResponse, error) {
			if deletions++; deletions == 3 {
				close(reached)
			}
			if deletions >= 3 {
				return nil, fault.New(fault.Unavailable, "the group has no leader")
			}
			return out, nil
		}
		f.store.mu.Unlock()
		first := deleteRange(t, f, &api.DeleteRangeRequest{All: true})
		<-time.After(time.Millisecond) // what began first runs first
		second := deleteRange(t, f, &api.DeleteRangeRequest{Prefix: "k"})
		waits, err := f.DescribeJob(t.Context(), &api.DescribeJobRequest{Id: second.Id})
		wantCode(t, err, "")
		if !strings.Contains(waits.Message, first.Id) {
			t.Fatalf("a job that waits: %v", waits)
		}
		<-reached
		for _, id := range []string{second.Id, first.Id, first.Id} {
			job, err := f.CancelJob(t.Context(), &api.CancelJobRequest{Id: id})
			wantCode(t, err, "")
			if job.State != "cancelling" && job.State != format.JobCancelled {
				t.Fatalf("job %v", job)
			}
		}
		if job := await(t, f, first.Id, format.JobCancelled); job.Done == 0 || job.Done == 900 || job.FinishedAtMs == 0 {
			t.Fatalf("job %v", job)
		}
		if job := await(t, f, second.Id, format.JobCancelled); job.Done != 0 {
			t.Fatalf("job %v", job)
		}
		left := f.store.count("default")
		f.store.mu.Lock()
		f.store.deleted = nil
		f.store.mu.Unlock()
		<-time.After(time.Minute)
		if f.store.count("default") != left || left == 0 {
			t.Fatalf("%d keys left, then %d", left, f.store.count("default"))
		}
		_, err = f.CancelJob(t.Context(), &api.CancelJobRequest{Id: first.Id})
		wantCode(t, err, "") // again
		done := await(t, f, deleteRange(t, f, &api.DeleteRangeRequest{Prefix: "none"}).Id, format.JobDone)
		_, err = f.CancelJob(t.Context(), &api.CancelJobRequest{Id: done.Id})
		wantCode(t, err, fault.FailedPrecondition)
		_, err = f.CancelJob(t.Context(), &api.CancelJobRequest{Id: "none"})
		wantCode(t, err, fault.NotFound)
		list, err := f.ListJobs(t.Context(), nil)
		wantCode(t, err, "")
		if len(list.Jobs) != 3 {
			t.Fatalf("jobs %v", list.Jobs)
		}
	})
}

func TestBadRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		for _, c := range []struct {
			q    *api.DeleteRangeRequest
			code fault.Code
		}{
			{&api.DeleteRangeRequest{}, fault.InvalidArgument},
			{&api.DeleteRangeRequest{All: true, Prefix: "a"}, fault.InvalidArgument},
			{&api.DeleteRangeRequest{Start: "b", End: "b"}, fault.InvalidArgument},
			{&api.DeleteRangeRequest{Prefix: "a", Tags: map[string]string{"x": strings.Repeat("y", 40<<10)}}, fault.InvalidArgument},
			{&api.DeleteRangeRequest{Namespace: keyspace.SystemNamespaceName, All: true}, fault.PermissionDenied},
		} {
			if _, err := f.DeleteRange(t.Context(), c.q); fault.CodeOf(err) != c.code {
				t.Errorf("%v: %v, want %s", c.q, err, c.code)
			}
		}
		for i := range maxRunningJobs {
			j := format.JobRecord{ID: fmt.Sprint("x", i), Kind: "of-a-newer-version", State: format.JobRunning}
			wantCode(t, f.put(t.Context(), format.SystemJobKey(j.ID), j, nil), "")
		}
		_, err := f.DeleteRange(t.Context(), &api.DeleteRangeRequest{Prefix: "a"})
		wantCode(t, err, fault.Overloaded)
	})
}

// Whatever is written between the deletions and however they are cut up: of the
// keys that existed at the start exactly those go that were not written since.
func TestDeleteRangeAgainstWriters(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newStore()
			fill(store, "default", rapid.IntRange(1, 250).Draw(r, "keys"))
			f := newFixture(t, store)
			job := deleteRange(t, f, &api.DeleteRangeRequest{All: true})
			want := map[string]bool{}
			store.mu.Lock()
			writes := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 260), 0, 5), 0, 20).Draw(r, "writes")
			store.deleting = func() {
				if len(writes) == 0 {
					return
				}
				for _, n := range writes[0] {
					key := fmt.Sprintf("k%04d", n)
					want["default/"+key] = true
					store.write("default/"+key, &api.PutRequest{Key: key})
				}
				writes = writes[1:]
			}
			store.mu.Unlock()
			await(t, f, job.Id, format.JobDone)
			store.mu.Lock()
			defer store.mu.Unlock()
			left := map[string]bool{}
			for k := range store.data {
				if strings.HasPrefix(k, "default/") {
					left[k] = true
				}
			}
			if !maps.Equal(left, want) {
				t.Errorf("left %v, want %v", left, want)
			}
		})
	})
}
