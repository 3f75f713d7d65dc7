package host

import (
	"context"
	"fmt"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// VersionsRequest asks for the versions of one key.
type VersionsRequest struct {
	Namespace keyspace.NamespaceID
	Key       string
	// Until is inclusive; 0 begins with what the permission sees.
	Until    keyspace.Revision
	KeysOnly bool
	// Limit and MaxBytes bound the page, but for one version.
	Limit, MaxBytes int
}

// VersionsPage is the answer to a VersionsRequest, newest first.
type VersionsPage struct {
	// Versions have tombstones too. The last one of the last page is what was
	// current at Floor, unless that was a tombstone or nothing.
	Versions []format.Record
	// More: there are older ones above the floor, or the one that was current there.
	More bool
	// Floor is where history begins on this replica.
	Floor keyspace.Revision
}

// Versions returns a page of the versions of one key with the permission p. What
// is replaced below the floor may be gone or not, and is left out.
func (h *Host) Versions(ctx context.Context, p ReadPoint, r VersionsRequest) (VersionsPage, error) {
	if err := p.owns(r.Namespace, r.Key); err != nil {
		return VersionsPage{}, err
	}
	g := h.lookup(p.Group)
	if g == nil {
		return VersionsPage{}, errNotHosted(p.Group)
	}
	l, err := h.lookAt(g, p)
	if err != nil {
		return VersionsPage{}, err
	}
	defer l.close()
	page, err := l.versions(ctx, &r)
	if err != nil {
		return VersionsPage{}, fmt.Errorf("versions of key %q in group %d: %w", r.Key, g.id, err)
	}
	page.trim(l.floor())
	return page, nil
}

// floor is the revision from which on this replica's history is whole now.
func (r *look) floor() keyspace.Revision {
	floor := keyspace.Revision(r.host.floor.Load())
	if r.state != nil {
		floor = max(floor, r.state.Floor)
	}
	return floor
}

func (r *look) versions(ctx context.Context, q *VersionsRequest) (page VersionsPage, err error) {
	at := r.rev
	if q.Until != 0 {
		at = min(at, q.Until)
	}
	key := keyspace.AppendDataKey(nil, q.Namespace, []byte(q.Key))
	it := r.view.Scan(mvcc.ScanOptions{Instance: r.instance.id, Lower: key, Upper: append(slices.Clone(key), 0), At: at, AllVersions: true})
	defer it.Close()
	bytes := 0
	for n := 0; it.Valid(); it.Next() {
		if n++; n&255 == 0 {
			if err := late(ctx); err != nil {
				return page, err
			}
		}
		if it.Deleted() {
			continue
		}
		if len(page.Versions) >= q.Limit || bytes >= q.MaxBytes && len(page.Versions) > 0 {
			page.More = true
			break
		}
		rec, err := r.version(it, q.KeysOnly)
		switch {
		case fault.CodeOf(err) == fault.Corruption && page.reaches(r.floor()):
			return page, nil // the floor has risen, and the chunks of what it passed went
		case err != nil:
			return page, err
		}
		page.Versions = append(page.Versions, rec)
		if bytes += len(rec.Value) + len(q.Key); rec.Revision <= r.floor() {
			break
		}
	}
	return page, it.Err()
}

// version is the record at a scanner, with a value of its own.
func (r *look) version(it *mvcc.Scanner, keysOnly bool) (format.Record, error) {
	value, err := it.Value()
	if err != nil {
		return format.Record{}, err
	}
	rec, err := format.DecodeRecord(value, it.Revision())
	switch {
	case err != nil:
	case keysOnly:
		rec.Value = nil
	case rec.Flags&format.FlagChunked != 0:
		err = joinChunks(r.view, r.instance.id, &rec)
	default:
		rec.Value = slices.Clone(rec.Value)
	}
	return rec, err
}

// reaches reports whether the page has all above a floor.
func (p *VersionsPage) reaches(floor keyspace.Revision) bool {
	n := len(p.Versions)
	return n > 0 && p.Versions[n-1].Revision <= floor
}

// trim leaves of what is at or below the floor the newest, if it is a value.
func (p *VersionsPage) trim(floor keyspace.Revision) {
	p.Floor = floor
	for i := range p.Versions {
		v := &p.Versions[i]
		if v.Revision > floor {
			continue
		}
		n := i + 1
		if v.Flags&format.FlagTombstone != 0 {
			n = i
		}
		p.Versions, p.More = p.Versions[:n], false
		return
	}
}
