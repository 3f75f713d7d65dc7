package meta

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

func TestNodesRegisterAndFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		synctest.Wait()
		if fmt.Sprint(f.peers.addrs) != "map[id-b:b:7946 id-c:c:7946]" {
			t.Fatalf("peers %v", f.peers.addrs)
		}
		// b moves and d comes.
		moved, joined := record("b"), record("d")
		moved.Peer = "elsewhere:1"
		ctx := t.Context()
		wantCode(t, f.put(ctx, format.SystemNodeKey(moved.ID), moved, nil), "")
		wantCode(t, f.put(ctx, format.SystemNodeKey(joined.ID), joined, nil), "")
		wantCode(t, f.dir.Refresh(ctx), "")
		if fmt.Sprint(f.peers.addrs) != "map[id-b:elsewhere:1 id-c:c:7946 id-d:d:7946]" {
			t.Fatalf("peers %v", f.peers.addrs)
		}
		self, ok, err := get[format.NodeRecord](ctx, f.Service, format.SystemNodeKey("id-a"))
		if err != nil || !ok || self.record != record("a") {
			t.Fatalf("own record %+v %v %v", self, ok, err)
		}
		cluster, ok, err := get[format.ClusterRecord](ctx, f.Service, format.SystemClusterKey)
		if err != nil || !ok || cluster.record.Groups != 4 || cluster.version != 1 {
			t.Fatalf("cluster record %+v %v %v", cluster, ok, err)
		}
		m := f.dir.Map()
		if m.ClusterID != "cluster" || m.Groups != 4 || m.Epoch == 0 || len(m.Nodes) != 4 {
			t.Fatalf("map %+v", m)
		}
	})
}

// Ids are given once, whatever happens at the same time, and not again after a
// deletion.
func TestNamespaceIDsAreNeverReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		nodes := []*fixture{newFixture(t, store), newFixture(t, store), newFixture(t, store)}
		for _, f := range nodes[1:] {
			f.host.lead(false)
		}
		seen := map[uint32]string{}
		create := func(f *fixture, name string) *api.Namespace {
			t.Helper()
			ns, err := f.CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: name})
			wantCode(t, err, "")
			return ns
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, f := range nodes {
			wg.Go(func() {
				for n := range 3 {
					ns := create(f, fmt.Sprintf("n%d-%d", i, n))
					mu.Lock()
					if old, ok := seen[ns.Id]; ok || ns.Id < uint32(keyspace.FirstUserNamespace) {
						t.Errorf("id %d given to %s and %s", ns.Id, old, ns.Name)
					}
					seen[ns.Id] = ns.Name
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		_, err := nodes[0].CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: "n1-1"})
		wantCode(t, err, fault.NamespaceExists)
		job, err := nodes[1].DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "n1-1"})
		wantCode(t, err, "")
		_, err = nodes[0].CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: "n1-1"})
		wantCode(t, err, fault.NamespaceDeleting)
		await(t, nodes[2], job.Id, format.JobDone)
		if ns := create(nodes[2], "n1-1"); seen[ns.Id] != "" {
			t.Fatalf("id %d of %s was given again", ns.Id, seen[ns.Id])
		}
	})
}

// await lets time pass until a job is in a state.
func await(t *testing.T, f *fixture, id, state string) *api.Job {
	t.Helper()
	for range 600 {
		job, err := f.DescribeJob(t.Context(), &api.DescribeJobRequest{Id: id})
		wantCode(t, err, "")
		if job.State == state {
			return job
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatalf("job %s is not %s after a minute", id, state)
	return nil
}

func TestNamespaceNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		for name, code := range map[string]fault.Code{
			"": fault.InvalidArgument, "_system": fault.InvalidArgument, "a b": fault.InvalidArgument, "default": fault.NamespaceExists,
		} {
			_, err := f.CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: name})
			if fault.CodeOf(err) != code {
				t.Errorf("%q: %v, want %s", name, err, code)
			}
		}
		_, err := f.DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "default"})
		wantCode(t, err, fault.FailedPrecondition)
		_, err = f.DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "nowhere"})
		wantCode(t, err, fault.NamespaceNotFound)
		_, err = f.DescribeNamespace(t.Context(), &api.DescribeNamespaceRequest{Name: "nowhere"})
		wantCode(t, err, fault.NamespaceNotFound)
		ns, err := f.CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		if got := f.dir.Map().Namespaces["app"]; uint32(got.ID) != ns.Id {
			t.Fatalf("the creating node resolves %+v, want %d", got, ns.Id)
		}
		list, err := f.ListNamespaces(t.Context(), &api.ListNamespacesRequest{})
		wantCode(t, err, "")
		if len(list.Namespaces) != 3 || list.Namespaces[1].Name != "app" || list.Namespaces[1].State != "active" {
			t.Fatalf("namespaces %v", list.Namespaces)
		}
	})
}

func fill(store *fakeStore, ns string, n int) {
	for i := range n {
		_, _ = store.Put(context.Background(), &api.PutRequest{Namespace: ns, Key: fmt.Sprintf("k%04d", i)})
	}
}

// The job waits until no node can still use the name, then deletes and counts.
func TestDeletionWaitsThenDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		_, err := f.CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		fill(f.store, "app", 450)
		fill(f.store, "other", 5)
		began := time.Now()
		job, err := f.DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		again, err := f.DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		if again.Id != job.Id {
			t.Fatalf("second job %s beside %s", again.Id, job.Id)
		}
		f.store.mu.Lock()
		first := time.Duration(0)
		f.store.before = func(key string) error {
			if first == 0 && key == "app/k0000" {
				first = time.Since(began)
			}
			return nil
		}
		f.store.mu.Unlock()
		done := await(t, f, job.Id, format.JobDone)
		if done.Done != 450 || done.Total != 450 || done.FinishedAtMs == 0 {
			t.Fatalf("job %v", done)
		}
		if first < namespaceValidity {
			t.Fatalf("first key deleted after %v, copies are valid for %v", first, namespaceValidity)
		}
		if f.store.count("app") != 0 || f.store.count("other") != 5 {
			t.Fatalf("%d keys left, %d of another namespace", f.store.count("app"), f.store.count("other"))
		}
		_, err = f.DescribeNamespace(t.Context(), &api.DescribeNamespaceRequest{Name: "app"})
		wantCode(t, err, fault.NamespaceNotFound)
	})
}

// The leader changes in the middle: the next one goes on and nothing is counted
// twice.
func TestDeletionSurvivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		a, b := newFixture(t, store), newFixture(t, store)
		b.host.lead(false)
		_, err := a.CreateNamespace(t.Context(), &api.CreateNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		fill(store, "app", 350)
		store.mu.Lock()
		broken := false
		store.before = func(key string) error {
			if key == "app/k0250" && !broken {
				broken = true
				a.host.lead(false)
				return fault.New(fault.Unavailable, "leader is gone")
			}
			return nil
		}
		store.mu.Unlock()
		job, err := a.DeleteNamespace(t.Context(), &api.DeleteNamespaceRequest{Name: "app"})
		wantCode(t, err, "")
		for range 200 {
			<-time.After(100 * time.Millisecond)
		}
		mid, err := b.DescribeJob(t.Context(), &api.DescribeJobRequest{Id: job.Id})
		wantCode(t, err, "")
		if mid.State != format.JobRunning || mid.Done != 200 || mid.Total != 350 {
			t.Fatalf("job without a leader: %v", mid)
		}
		b.host.lead(true)
		done := await(t, b, job.Id, format.JobDone)
		if done.Done != 350 || store.count("app") != 0 {
			t.Fatalf("job %v, %d keys left", done, store.count("app"))
		}
	})
}

func join(f *fixture, n format.NodeRecord) (*api.JoinResponse, error) {
	return f.Join(context.Background(), &api.JoinRequest{
		NodeId: string(n.ID), NodeName: n.Name, Peer: n.Peer, ClusterName: "test", FormatVersion: format.Version, Role: n.Role,
	})
}

// A wiped node comes back under its name; its old id is replaced for ever.
func TestJoinReplacesAWipedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alive := true
		f := newFixture(t, newStore(), func(o *Options) {
			o.Alive = func(context.Context, format.NodeRecord) bool { return alive }
		})
		synctest.Wait()
		old, fresh := record("b"), record("b")
		fresh.ID = "id-b2"
		_, err := join(f, old)
		wantCode(t, err, "")
		_, err = join(f, fresh)
		wantCode(t, err, fault.FailedPrecondition) // two running nodes of one name
		alive = false
		resp, err := join(f, fresh)
		wantCode(t, err, "")
		if resp.ClusterId != "cluster" || len(resp.Nodes) != 3 {
			t.Fatalf("welcome %v", resp)
		}
		m := f.dir.Map()
		if m.Successor("id-b") != "id-b2" || m.Nodes["id-b2"].Name != "b" || m.Nodes["id-b"].Name != "" {
			t.Fatalf("map %+v", m)
		}
		_, err = join(f, old)
		wantCode(t, err, fault.FailedPrecondition)
		_, err = join(f, fresh) // asked again after a lost answer
		wantCode(t, err, "")
	})
}

// G6: a recovery marks the lost nodes in one write, once; they never come back,
// and their names are free, also while something answers under them.
func TestRecoveryRemovesNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore(), func(o *Options) {
			o.Alive = func(context.Context, format.NodeRecord) bool { return true }
			o.Recovery = func() (uint64, []string) { return 2, []string{"id-a"} }
		})
		synctest.Wait()
		_, err := join(f, record("b"))
		wantCode(t, err, "")
		for range 2 {
			wantCode(t, f.RecordRecovery(t.Context(), 2, []keyspace.NodeID{"id-b", "id-c"}), "")
			m := f.dir.Map()
			if m.RecoveryEpoch != 2 || len(m.Nodes) != 1 || len(m.Replaced) != 0 {
				t.Fatalf("map %+v", m)
			}
		}
		revision := f.store.rev
		wantCode(t, f.RecordRecovery(t.Context(), 2, []keyspace.NodeID{"id-b", "id-c"}), "")
		if f.store.rev != revision {
			t.Fatal("the same recovery is written again")
		}
		wantCode(t, f.RecordRecovery(t.Context(), 1, nil), fault.FailedPrecondition)
		_, err = join(f, record("b"))
		wantCode(t, err, fault.FailedPrecondition)
		fresh := record("b")
		fresh.ID = "id-b2"
		resp, err := join(f, fresh)
		wantCode(t, err, "")
		if resp.RecoveryEpoch != 2 || len(resp.Survivors) != 1 || f.dir.Map().Successor("id-b") != "id-b2" {
			t.Fatalf("welcome %v, map %+v", resp, f.dir.Map())
		}
	})
}

func TestJoinIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newStore())
		ok := &api.JoinRequest{NodeId: "x", NodeName: "x", Peer: "x:1", ClusterName: "test", FormatVersion: format.Version}
		for name, change := range map[string]func(*api.JoinRequest){
			"no id":          func(q *api.JoinRequest) { q.NodeId = "" },
			"no address":     func(q *api.JoinRequest) { q.Peer = "" },
			"wrong cluster":  func(q *api.JoinRequest) { q.ClusterName = "other" },
			"format too new": func(q *api.JoinRequest) { q.FormatVersion = format.Version + 1 },
		} {
			q := &api.JoinRequest{NodeId: ok.NodeId, NodeName: ok.NodeName, Peer: ok.Peer, ClusterName: ok.ClusterName, FormatVersion: ok.FormatVersion}
			change(q)
			if _, err := f.Join(t.Context(), q); err == nil {
				t.Errorf("%s: admitted", name)
			}
		}
	})
}

// Callers share a read, but never one that began before they came.
func TestRefreshBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDirectory(seed())
		wantCode(t, d.Refresh(t.Context()), fault.Unavailable)
		var wg sync.WaitGroup
		gate := make(chan struct{})
		loads := 0
		d.attach(t.Context(), &wg, func(context.Context) error {
			loads++
			<-gate
			return nil
		})
		var callers sync.WaitGroup
		callers.Go(func() { _ = d.Refresh(t.Context()) })
		synctest.Wait()
		for range 10 {
			callers.Go(func() { _ = d.Refresh(t.Context()) })
		}
		synctest.Wait()
		if loads != 1 {
			t.Fatalf("%d reads at once", loads)
		}
		close(gate)
		callers.Wait()
		wg.Wait()
		if loads != 2 {
			t.Fatalf("%d reads for one caller and then ten", loads)
		}
	})
}

func TestOneDamagedRecordIsSkipped(t *testing.T) {
	s := build(seed(), []entry{
		{key: "cluster", value: []byte(`{"id":"c2","groups":8}`), version: 1, revision: 5},
		{key: "group/1", value: []byte(`{"members":[{"replica":4,"node":"x"}]}`), version: 1, revision: 9},
		{key: "group/2", value: []byte(`{`), version: 1, revision: 11},
		{key: "node/y", value: []byte(`nonsense`), version: 1, revision: 4},
	}, time.Second)
	if len(s.damaged) != 2 || s.view.ClusterID != "c2" || s.view.Members[1][0].Node != "x" || s.view.Epoch != 11 {
		t.Fatalf("damaged %v, view %+v", s.damaged, s.view)
	}
}

// A node may begin to stop between a call of Refresh and the reading.
func TestRefreshWhileItStops(t *testing.T) {
	d := NewDirectory(seed())
	d.attach(t.Context(), new(sync.WaitGroup), func(context.Context) error { return nil })
	asked := &round{done: make(chan struct{})}
	d.next, d.active = asked, true
	d.detach()
	d.run()
	<-asked.done
	wantCode(t, asked.err, fault.Unavailable)
	wantCode(t, d.Refresh(t.Context()), fault.Unavailable)
}
