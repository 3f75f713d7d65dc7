package router

import (
	"context"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// count adds up the matching keys of all groups, in pages that keep each call
// short; nothing is returned but the number.
func (l *lister) count(ctx context.Context) (*api.ListResponse, error) {
	out := &api.ListResponse{}
	if l.empty() {
		l.state(out)
		return out, nil
	}
	err := l.repeating(ctx, func(ctx context.Context) (err error) {
		out.Count, err = l.countAll(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.state(out)
	return out, nil
}

func (l *lister) countAll(ctx context.Context) (total uint64, err error) {
	counts, claims := make([]uint64, len(l.groups)), make([]claim, len(l.groups))
	eg, ctx := errgroup.WithContext(ctx)
	for i, g := range l.groups {
		eg.Go(func() (err error) {
			counts[i], claims[i], err = l.countGroup(ctx, g)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return 0, err
	}
	var all claim
	for i := range l.groups {
		total += counts[i]
		all.join(&claims[i])
	}
	if !l.covered(&all) {
		return 0, errUncovered
	}
	return total, nil
}

// countGroup counts one group's keys; all its pages have the same claim.
func (l *lister) countGroup(ctx context.Context, g keyspace.GroupID) (total uint64, first claim, err error) {
	lower, upper := l.lower, l.upper
	for n := 0; ; n++ {
		p, err := l.r.scanGroup(ctx, g, l.req.Namespace, l.request(lower, upper, MaxListLimit, l.r.o.PageBytes), l.leaders)
		if err != nil {
			return 0, claim{}, err
		}
		now := l.claimOf(p)
		if n == 0 {
			first = now
		}
		total += p.count
		more, next, ends := p.more, p.next, p.ends
		p.release()
		switch {
		case ends:
			return 0, claim{}, errEnded
		case now != first:
			return 0, claim{}, errUncovered
		case !more:
			return total, first, nil
		case l.req.Reverse:
			upper = next
		default:
			lower = next
		}
	}
}
