package meta

import (
	"context"
	"fmt"
	"sort"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// maxRaces bounds the attempts of a read-modify-write that others overtake.
const maxRaces = 16

// CreateNamespace implements router.Admin. The id and the name are written
// together, so an id is given once even when several nodes create at a time.
func (s *Service) CreateNamespace(ctx context.Context, req *api.CreateNamespaceRequest) (*api.Namespace, error) {
	ctx = system(ctx)
	if err := keyspace.ValidateNamespaceName(req.GetName()); err != nil {
		return nil, err
	}
	if req.Name == keyspace.DefaultNamespaceName {
		return nil, errExists(req.Name)
	}
	for range maxRaces {
		ns, err := s.create(ctx, req.Name)
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue // another node took the id or the name: look again
		}
		if err != nil {
			return nil, err
		}
		// So that this node serves the name at once; others read on their
		// first miss.
		if err := s.dir.Refresh(ctx); err != nil {
			s.o.Logger.Debug("cluster metadata is not readable", "error", err)
		}
		return ns, nil
	}
	return nil, errRaces("namespace", req.Name)
}

func (s *Service) create(ctx context.Context, name string) (*api.Namespace, error) {
	old, exists, err := get[format.NamespaceRecord](ctx, s, format.SystemNamespaceKey(name))
	switch {
	case err != nil:
		return nil, err
	case exists && old.record.State == format.NamespaceDeleting:
		return nil, fault.New(fault.NamespaceDeleting, "namespace is being deleted; its name is free when the job is done",
			"namespace", name, "job", old.record.Job)
	case exists:
		return nil, errExists(name)
	}
	seq, _, err := get[format.NamespaceSeqRecord](ctx, s, format.SystemNamespaceSeqKey)
	if err != nil {
		return nil, err
	}
	id := max(seq.record.Next, keyspace.FirstUserNamespace)
	if id == 1<<32-1 {
		return nil, fault.New(fault.OutOfRange, "no namespace id is left", "limit", uint32(id))
	}
	record := format.NamespaceRecord{ID: id, Created: s.o.Clock.Wall(), State: format.NamespaceActive}
	err = s.putAll(ctx,
		item(format.SystemNamespaceSeqKey, format.NamespaceSeqRecord{Next: id + 1}, atVersion(seq.version)),
		item(format.SystemNamespaceKey(name), record, absent()))
	return wire(name, record), err
}

func errExists(name string) error {
	return fault.New(fault.NamespaceExists, "namespace exists already", "namespace", name)
}

func errRaces(what, name string) error {
	return fault.New(fault.Unavailable, "too many others change the cluster's metadata", what, name, "attempts", maxRaces)
}

func wire(name string, n format.NamespaceRecord) *api.Namespace {
	return &api.Namespace{Name: name, Id: uint32(n.ID), CreatedAtMs: n.Created, State: n.State, DeletionJob: n.Job}
}

// builtin returns a namespace that needs no record.
func (s *Service) builtin(name string) (*api.Namespace, bool) {
	created := s.dir.current.Load().cluster.record.Created
	switch name {
	case "", keyspace.DefaultNamespaceName:
		return wire(keyspace.DefaultNamespaceName, format.NamespaceRecord{
			ID: keyspace.DefaultNamespace, Created: created, State: format.NamespaceActive}), true
	case keyspace.SystemNamespaceName:
		return wire(name, format.NamespaceRecord{
			ID: keyspace.SystemNamespace, Created: created, State: format.NamespaceActive}), true
	}
	return nil, false
}

// ListNamespaces implements router.Admin.
func (s *Service) ListNamespaces(ctx context.Context, _ *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	if err := s.dir.Refresh(ctx); err != nil {
		return nil, err
	}
	st := s.dir.current.Load()
	out := &api.ListNamespacesResponse{}
	for name, n := range st.namespaces {
		out.Namespaces = append(out.Namespaces, wire(name, n.record))
	}
	for _, name := range []string{keyspace.DefaultNamespaceName, keyspace.SystemNamespaceName} {
		ns, _ := s.builtin(name)
		out.Namespaces = append(out.Namespaces, ns)
	}
	sort.Slice(out.Namespaces, func(i, j int) bool { return out.Namespaces[i].Name < out.Namespaces[j].Name })
	return out, nil
}

// DescribeNamespace implements router.Admin.
func (s *Service) DescribeNamespace(ctx context.Context, req *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	if ns, ok := s.builtin(req.GetName()); ok {
		return ns, nil
	}
	n, ok, err := get[format.NamespaceRecord](system(ctx), s, format.SystemNamespaceKey(req.Name))
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errMissing(req.Name)
	}
	return wire(req.Name, n.record), nil
}

func errMissing(name string) error {
	return fault.New(fault.NamespaceNotFound, "namespace does not exist", "namespace", name)
}

// DeleteNamespace implements router.Admin. Asked again it returns the job that
// runs.
func (s *Service) DeleteNamespace(ctx context.Context, req *api.DeleteNamespaceRequest) (*api.Job, error) {
	ctx = system(ctx)
	if _, ok := s.builtin(req.GetName()); ok {
		return nil, fault.New(fault.FailedPrecondition, "namespace is built in and cannot be deleted", "namespace", req.GetName())
	}
	for range maxRaces {
		n, ok, err := get[format.NamespaceRecord](ctx, s, format.SystemNamespaceKey(req.Name))
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, errMissing(req.Name)
		case n.record.State == format.NamespaceDeleting:
			return s.DescribeJob(ctx, &api.DescribeJobRequest{Id: n.record.Job})
		}
		job := format.JobRecord{
			ID: fmt.Sprintf("%s-%016x", format.JobDeleteNamespace, s.o.Rand.Uint64()), Kind: format.JobDeleteNamespace,
			State: format.JobRunning, Namespace: req.Name, NamespaceID: n.record.ID, Started: s.o.Clock.Wall(),
		}
		record := n.record
		record.State, record.Job = format.NamespaceDeleting, job.ID
		err = s.putAll(ctx,
			item(format.SystemNamespaceKey(req.Name), record, atVersion(n.version)),
			item(format.SystemJobKey(job.ID), job, absent()))
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Wake()
		return wireJob(job), nil
	}
	return nil, errRaces("namespace", req.Name)
}
