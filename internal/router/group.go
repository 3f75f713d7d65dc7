package router

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// scanPage is one page of one or more groups, its records in wire form.
type scanPage struct {
	bytes   []byte
	records []wireRecord
	next    []byte
	more    bool
	count   uint64
	ends    bool // of host.ScanPage
	// slots are what the page's groups owned, beside those that are silent: their
	// logs say nothing of slots. overlap: two of them owned the same.
	slots   format.SlotSet
	silent  []keyspace.GroupID
	overlap bool
}

func (p *scanPage) key(i int) []byte { return p.bytes[p.records[i].keyFrom:p.records[i].keyTo] }

// pending is the size of the records from i on.
func (p *scanPage) pending(i int) int { return len(p.bytes) - p.records[i].from }

// add is the callback of the host's scans.
func (p *scanPage) add(keysOnly bool) func([]byte, *format.Record) {
	return func(key []byte, rec *format.Record) {
		var w wireRecord
		p.bytes, w = appendRecord(p.bytes, key, rec, keysOnly)
		p.records = append(p.records, w)
	}
}

var scanPages = sync.Pool{New: func() any { return new(scanPage) }}

// maxPooledPage keeps pages of large values from staying in memory.
const maxPooledPage = 1 << 20

func newScanPage() *scanPage { return scanPages.Get().(*scanPage) }

// release ends the use of a page; nil is allowed.
func (p *scanPage) release() {
	if p == nil || cap(p.bytes) > maxPooledPage {
		return
	}
	*p = scanPage{bytes: p.bytes[:0], records: p.records[:0]}
	scanPages.Put(p)
}

// finish takes the host's answer.
func (p *scanPage) finish(from host.ScanPage, err error) (*scanPage, error) {
	if err != nil {
		p.release()
		return nil, err
	}
	p.next, p.more, p.count, p.ends = from.Next, from.More, from.Count, from.Ends
	p.slots, p.silent, p.overlap = from.Slots, from.Silent, from.Overlap
	return p, nil
}

// scanHere reads one page of groups that are readable here.
func (r *Router) scanHere(ctx context.Context, at []host.ScanPoint, q host.ScanRequest) (*scanPage, error) {
	p := newScanPage()
	return p.finish(r.o.Host.ScanTogether(ctx, at, q, p.add(q.KeysOnly)))
}

// scanGroup reads one page of g on any replica that can serve its revision, or
// on its leader.
func (r *Router) scanGroup(ctx context.Context, g keyspace.GroupID, nsName string, q host.ScanRequest, leader bool) (*scanPage, error) {
	var page *scanPage
	err := r.onGroup(ctx, g, attempt{
		anyReplica: !leader,
		local: func(ctx context.Context) (err error) {
			p := newScanPage()
			answer, err := r.o.Host.ScanGroup(ctx, g, q, p.add(q.KeysOnly))
			page, err = p.finish(answer, err)
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, peer api.PeerClient) error {
			resp, err := peer.GroupScan(ctx, scanRequest(g, nsName, q))
			if err != nil {
				return err
			}
			page, err = peerPage(node, g, resp)
			if err == nil {
				page.ends = q.EndsBy > 0 && resp.Ends != endsNone
			}
			return err
		},
	})
	return page, err
}

// peerPage takes a peer's answer; one that does not know the encoded form
// answers with messages.
func peerPage(node keyspace.NodeID, g keyspace.GroupID, resp *api.GroupScanResponse) (*scanPage, error) {
	p := &scanPage{bytes: resp.Encoded, next: resp.Next, more: resp.More, count: resp.Count}
	if len(resp.Records) > 0 {
		var err error
		if p.bytes, err = proto.Marshal(&api.GroupScanResponse{Records: resp.Records}); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "records of a peer cannot be encoded", "node", node)
		}
	}
	var ok bool
	if p.slots, ok = format.SlotSetOf(resp.Slots); !ok {
		p.silent = []keyspace.GroupID{g}
	}
	if p.records, ok = findRecords(p.bytes); !ok {
		return nil, fault.New(fault.Internal, "answer of a peer cannot be decoded", "method", "GroupScan", "node", node)
	}
	return p, nil
}

// What GroupScanResponse.ends says.
const (
	endsNone = 1
	endsSome = 2
)

func scanRequest(g keyspace.GroupID, nsName string, q host.ScanRequest) *api.GroupScanRequest {
	return &api.GroupScanRequest{
		Group: uint32(g), NamespaceId: uint32(q.Namespace), Namespace: nsName, Revision: uint64(q.Revision),
		Start: q.Start, End: q.End, Reverse: q.Reverse, KeysOnly: q.KeysOnly, CountOnly: q.CountOnly,
		Limit: uint32(q.Limit), MaxBytes: uint64(q.MaxBytes), Tags: q.Tags, Encoded: true,
		EndsAfter: q.EndsAfter, EndsBy: q.EndsBy,
	}
}

// ServeScan answers Peer.GroupScan from this node's replica.
func (r *Router) ServeScan(ctx context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	g := keyspace.GroupID(q.Group)
	if !r.o.Host.Hosts(g) {
		return nil, r.elsewhere(g, "")
	}
	var page scanPage
	p, err := r.o.Host.ScanGroup(ctx, g, scanOf(q), page.add(q.KeysOnly))
	if err != nil {
		return nil, err
	}
	out := &api.GroupScanResponse{Next: p.Next, More: p.More, Count: p.Count}
	switch {
	case p.Ends:
		out.Ends = endsSome
	case q.EndsBy > 0:
		out.Ends = endsNone
	}
	if !p.AnySlots {
		out.Slots = p.Slots.Bitmap()
	}
	if q.Encoded {
		out.Encoded = page.bytes
	} else {
		out.ProtoReflect().SetUnknown(page.bytes) // the field records, as it is sent
	}
	return out, nil
}

// scanOf is the inverse of scanRequest; bounds are those of a message.
func scanOf(q *api.GroupScanRequest) host.ScanRequest {
	return host.ScanRequest{
		Namespace: keyspace.NamespaceID(q.NamespaceId), Revision: keyspace.Revision(q.Revision),
		Start: q.Start, End: q.End, Reverse: q.Reverse, KeysOnly: q.KeysOnly, CountOnly: q.CountOnly,
		Limit: int(min(q.Limit, MaxListLimit)), MaxBytes: int(min(q.MaxBytes, MaxBatchBytes)), Tags: q.Tags,
		EndsAfter: q.EndsAfter, EndsBy: q.EndsBy,
	}
}
