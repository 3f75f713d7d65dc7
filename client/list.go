package client

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// List returns one page of keys in order (at most 1,000 unless WithLimit says
// otherwise, at most about 4 MB). Page.Token continues on the same snapshot. The
// records of a page share its memory.
func (c *Client) List(ctx context.Context, opts ...ListOption) (Page, error) {
	return c.list(ctx, c.listCall(opts))
}

// Count counts keys without returning them.
func (c *Client) Count(ctx context.Context, opts ...ListOption) (uint64, error) {
	l := c.listCall(opts)
	l.countOnly = true
	var total uint64
	for {
		p, err := c.list(ctx, l)
		if err != nil {
			return 0, err
		}
		total += p.Count
		if l.token = p.Token; l.token == "" {
			return total, nil
		}
	}
}

// Scan yields all records in order, page by page, from one snapshot. An error
// is yielded once and ends it. Config.Timeout bounds each page, ctx the whole.
func (c *Client) Scan(ctx context.Context, opts ...ListOption) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l := c.listCall(opts)
		for {
			p, err := c.list(ctx, l)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for i := range p.Records {
				if !yield(p.Records[i], nil) {
					return
				}
			}
			if l.token = p.Token; l.token == "" {
				return
			}
		}
	}
}

func (c *Client) listCall(opts []ListOption) *listCall {
	l := &listCall{namespace: c.cfg.Namespace}
	for _, opt := range opts {
		opt.applyList(l)
	}
	return l
}

func (c *Client) list(ctx context.Context, l *listCall) (Page, error) {
	if l.at.err != nil {
		return Page{}, l.at.err
	}
	request := &api.ListRequest{
		Namespace: l.namespace, Prefix: l.prefix, Start: l.start, End: l.end, Limit: l.limit,
		KeysOnly: l.keysOnly, Reverse: l.reverse, ContinuationToken: l.token, Tags: l.tags, CountOnly: l.countOnly,
		AtRevision: l.at.revision, AtTimeMs: -l.at.agoMs,
		Consistency: api.Consistency(l.consistency), MaxStalenessMs: ceilMillis(l.maxAge),
	}
	answer, err := unary(ctx, c, readUnary, request,
		func(stub kvClient, ctx context.Context, in *api.ListRequest, opts ...grpc.CallOption) (*api.ListResponse, error) {
			return stub.List(ctx, in, append(opts, grpc.ForceCodecV2(listCodec))...)
		})
	if err != nil {
		return Page{}, err
	}
	var page Page
	if err := decodePage(answer.ProtoReflect().GetUnknown(), &page); err != nil {
		return Page{}, unreadable(false, err)
	}
	if l.token == "" {
		if err := l.at.served(page.Revision); err != nil {
			return Page{}, err
		}
	}
	for i := range page.Records {
		if err := page.Records[i].verify(l.keysOnly); err != nil {
			return Page{}, err
		}
	}
	return page, nil
}

func recordFromAPI(m *api.Record) Record {
	return Record{
		Key: m.GetKey(), Value: m.GetValue(), ContentType: m.GetContentType(), Encoding: m.GetEncoding(),
		Checksum: m.GetChecksum(), CreatedAt: milliTime(m.GetCreatedAtMs()), UpdatedAt: milliTime(m.GetUpdatedAtMs()),
		ExpiresAt: milliTime(m.GetExpiresAtMs()), Version: m.GetVersion(), Revision: m.GetRevision(),
		Tags: m.GetTags(), Metadata: m.GetMetadata(), Size: m.GetSize(),
		CreatedRevision: m.GetCreatedRevision(), Lease: m.GetLease(),
	}
}
