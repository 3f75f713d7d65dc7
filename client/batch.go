package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"kvstore/internal/env/system"
)

// BatchPut writes many keys. Each group's items are written all or not at all;
// with Atomic the whole batch is, whatever its groups. The results have the order of the items; the
// error is nil when all succeeded and otherwise a *BatchError, unless the batch
// was refused as a whole. The same key twice in a batch is refused by the server.
func (c *Client) BatchPut(ctx context.Context, items []PutItem, opts ...BatchWriteOption) ([]PutResult, error) {
	w := c.batchWrite(opts)
	for i := range items {
		if err := c.checkPut(&items[i]); err != nil {
			return nil, err
		}
	}
	results := make([]PutResult, len(items))
	b := &batch{
		kind: fieldOpBatchPut, write: true, namespace: w.namespace, whole: w.atomic, requestID: w.requestID, ownID: w.ownID, count: len(items),
		key: func(i int) string { return items[i].Key },
		encode: func(dst []byte, positions []int) []byte {
			return appendBatchPut(dst, w, items, positions)
		},
		decode: func(i int, answer []byte, _ *slab) error { return decodePut(answer, &results[i]) },
	}
	errs := c.runBatch(ctx, b)
	for i := range results {
		results[i].Err = errs[i]
	}
	return results, batchError(errs)
}

// BatchDelete deletes many keys, as BatchPut writes them.
func (c *Client) BatchDelete(ctx context.Context, items []DeleteItem, opts ...BatchWriteOption) ([]DeleteResult, error) {
	w := c.batchWrite(opts)
	for i := range items {
		if err := c.checkKey(items[i].Key); err != nil {
			return nil, err
		}
	}
	results := make([]DeleteResult, len(items))
	b := &batch{
		kind: fieldOpBatchDelete, write: true, namespace: w.namespace, whole: w.atomic, requestID: w.requestID, ownID: w.ownID, count: len(items),
		key: func(i int) string { return items[i].Key },
		encode: func(dst []byte, positions []int) []byte {
			return appendBatchDelete(dst, w, items, positions)
		},
		decode: func(i int, answer []byte, _ *slab) error { return decodeDelete(answer, &results[i]) },
	}
	errs := c.runBatch(ctx, b)
	for i := range results {
		results[i].Err = errs[i]
	}
	return results, batchError(errs)
}

// BatchGet reads many keys. The results have the order of the keys; a key that
// is not there has ErrNotFound in its result and is no failure of the batch.
// Keys of different groups are not read at one point in time.
func (c *Client) BatchGet(ctx context.Context, keys []string, opts ...BatchGetOption) ([]GetResult, error) {
	r := readCall{namespace: c.cfg.Namespace, from: c.cfg.Read}
	for _, opt := range opts {
		opt.applyBatchGet(&r)
	}
	for _, k := range keys {
		if err := c.checkKey(k); err != nil {
			return nil, err
		}
	}
	if r.at.err != nil {
		return nil, r.at.err
	}
	results := make([]GetResult, len(keys))
	b := &batch{
		at:   r.at,
		kind: fieldOpBatchGet, namespace: r.namespace, from: r.source(), count: len(keys), gathered: len(keys) <= gatherKeys,
		key: func(i int) string { return keys[i] },
		encode: func(dst []byte, positions []int) []byte {
			return appendBatchGet(dst, r.namespace, keys, positions, &r)
		},
		decode: func(i int, answer []byte, values *slab) error {
			if err := decodeRecord(answer, keys[i], &results[i].Record, values); err != nil {
				return err
			}
			return results[i].Record.verify(r.keysOnly)
		},
	}
	errs := c.runBatch(ctx, b)
	for i, err := range errs {
		results[i].Err = err
		if CodeOf(err) == CodeNotFound {
			errs[i] = nil
		}
	}
	return results, batchError(errs)
}

func (c *Client) batchWrite(opts []BatchWriteOption) *batchWriteCall {
	w := &batchWriteCall{namespace: c.cfg.Namespace}
	for _, opt := range opts {
		opt.applyBatchWrite(w)
	}
	if w.atomic {
		given := w.requestID
		w.requestID = c.ownID(given)
		w.ownID = given == "" && w.requestID != ""
	}
	return w
}

// batchError is nil when all of errs are.
func batchError(errs []error) error {
	var e *BatchError
	for i, err := range errs {
		if err == nil {
			continue
		}
		if e == nil {
			e = &BatchError{Total: len(errs), Items: make(map[int]error)}
		}
		e.Items[i] = err
	}
	if e == nil {
		return nil
	}
	return e
}

// batch is what the three kinds of batches differ in.
type batch struct {
	kind      protowire.Number
	write     bool
	namespace string
	// requestID and ownID are as in operation, of a batch in one message.
	requestID string
	ownID     bool
	from      ReadFrom
	// whole keeps all items in one message; gathered does where one node has
	// replicas of all their groups.
	whole, gathered bool
	count           int
	key             func(i int) string
	encode          func(dst []byte, positions []int) []byte
	at              moment // which past is read
	decode          func(i int, answer []byte, values *slab) error

	deadline time.Duration // as in operation
	sweep    bool
}

// gatherKeys is the number of keys up to which a batch of reads goes to one
// node: every replica can serve linearizable reads, which for a few keys costs
// less than a message, a frame and a wake-up for each leader. More keys are
// worth the work of several nodes at the same time.
const gatherKeys = 64

// maxBatchRounds bounds how often items that were not executed are sent again.
const maxBatchRounds = 8

// runBatch sends the items, one message per node at a time, and sends those
// again that the server says were not executed. It returns an error per item.
func (c *Client) runBatch(ctx context.Context, b *batch) []error {
	errs := make([]error, b.count)
	open := make([]int, b.count)
	for i := range open {
		open[i] = i
	}
	if err := ctx.Err(); err != nil {
		for i := range errs {
			errs[i] = contextError(err)
		}
		return errs
	}
	b.deadline, b.sweep = c.limit(ctx, c.now())
	for round := 0; len(open) > 0; round++ {
		epoch := c.topology().epoch
		c.runParts(ctx, b, c.split(b, open), errs)
		open = c.again(b, errs, open)
		c.leaveHome(b, errs, open)
		if round == maxBatchRounds || len(open) == 0 || !c.beforeRound(ctx, b, errs, open, round, epoch) {
			break
		}
	}
	return errs
}

// beforeRound waits before the open items are sent again; items of a group that
// does not own them wait for a topology newer than epoch. It is false when the
// time is over.
func (c *Client) beforeRound(ctx context.Context, b *batch, errs []error, open []int, round int, epoch uint64) bool {
	wait := jitter(c.cfg.RetryBase, c.cfg.RetryMax, round)
	misrouted := slices.ContainsFunc(open, func(i int) bool { return CodeOf(errs[i]) == CodeWrongGroup })
	if misrouted {
		wait += minRefreshGap
	}
	switch {
	case c.now()+wait >= b.deadline:
		return false
	case misrouted:
		return c.awaitNewer(ctx, epoch, wait) == nil
	}
	return system.Pause(ctx, wait) == nil
}

// again returns the positions whose item was certainly not executed, and those
// whose values were too much for one answer because the batch was gathered.
func (c *Client) again(b *batch, errs []error, positions []int) []int {
	var out []int
	refresh := false
	for _, i := range positions {
		if errs[i] == nil {
			continue
		}
		switch code := CodeOf(errs[i]); {
		case notExecuted(code), code == CodeUnknownOutcome && b.requestID != "":
			out, refresh = append(out, i), true
		case code == CodeMessageTooLarge && b.gathered:
			out = append(out, i)
		}
	}
	b.gathered = false
	if refresh {
		c.wantRefresh()
	}
	return out
}

// leaveHome gives the home up that refused items, and lets them go to leaders.
func (c *Client) leaveHome(b *batch, errs []error, open []int) {
	if b.from != Auto || len(open) == 0 {
		return
	}
	b.from = Leader
	for _, i := range open {
		c.home.failed(c.home.node.Load(), c.now(), errs[i])
	}
}

// split puts the items of groups that have the same leader together. A group
// is never split, because it is the unit of atomicity.
func (c *Client) split(b *batch, positions []int) [][]int {
	t := c.topology()
	if b.gathered && len(positions) > 1 && t.together(b, c.home.node.Load(), positions) {
		return [][]int{positions}
	}
	if len(positions) > 1 && b.from == Auto {
		b.from = Leader // what the parts are made by
	}
	return partition(b, positions, func(i int) *node {
		if g := t.groupOf(b.namespace, b.key(i)); g != nil {
			return g.leader.Load()
		}
		return nil
	})
}

// together reports whether each node that the first item's group may be read from
// has a replica of all groups.
func (t *topology) together(b *batch, home *node, positions []int) bool {
	first := t.groupOf(b.namespace, b.key(positions[0]))
	if first == nil {
		return false
	}
	nodes := first.replicas
	if b.from == Leader || b.from == Auto {
		leader := first.leader.Load()
		if leader == nil {
			return false
		}
		nodes = append(make([]*node, 0, 2), leader)
		if home != nil && b.from == Auto {
			nodes = append(nodes, home)
		}
	}
	if len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n *node) bool { return !slices.Contains(t.everywhere, n) }) {
		return true
	}
	last := first
	for _, i := range positions[1:] {
		g := t.groupOf(b.namespace, b.key(i))
		if g == last || g == first {
			continue
		}
		if g == nil {
			return false
		}
		for _, n := range nodes {
			if !slices.Contains(g.replicas, n) {
				return false
			}
		}
		last = g
	}
	return len(nodes) > 0
}

// splitGroups gives each group its own part.
func (c *Client) splitGroups(b *batch, positions []int) [][]int {
	t := c.topology()
	return partition(b, positions, func(i int) *group { return t.groupOf(b.namespace, b.key(i)) })
}

// scanOwners is the number of owners up to which looking at each is cheaper
// than a map.
const scanOwners = 32

// partition puts the items with the same owner together.
func partition[T comparable](b *batch, positions []int, owner func(i int) T) [][]int {
	if b.whole || len(positions) == 1 {
		return [][]int{positions}
	}
	var owners []T
	var counts []int
	known := map[T]int{} // those beyond scanOwners
	of := make([]int, len(positions))
	for n, i := range positions {
		who := owner(i)
		p := slices.Index(owners[:min(len(owners), scanOwners)], who)
		if p < 0 && len(owners) > scanOwners {
			if later, ok := known[who]; ok {
				p = later
			}
		}
		if p < 0 {
			p = len(owners)
			owners, counts = append(owners, who), append(counts, 0)
			if p >= scanOwners {
				known[who] = p
			}
		}
		of[n] = p
		counts[p]++
	}
	parts, all := make([][]int, len(owners)), make([]int, len(positions))
	for p, n := range counts {
		parts[p], all = all[:0:n], all[n:]
	}
	for n, p := range of {
		parts[p] = append(parts[p], positions[n])
	}
	return parts
}

// batchPart is what one node gets.
type batchPart struct {
	positions []int
	op        *operation
	attempt
}

// runParts runs the parts at the same time, at most one per node. All are sent
// and then waited for by this goroutine; those that fail or are too large for a
// message go on in one of their own.
func (c *Client) runParts(ctx context.Context, b *batch, parts [][]int, errs []error) {
	if len(parts) == 1 {
		c.runPart(ctx, b, parts[0], errs)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan *call, len(parts))
	waiting := make([]batchPart, 0, len(parts))
	// failed takes a part that is not waited for any more.
	failed := func(p batchPart, err error) {
		p.op.shared = nil
		wg.Go(func() {
			defer p.op.release()
			answer, err := c.repeat(ctx, p.op, p.attempt, err)
			b.take(answer, err, p.positions, errs)
		})
	}
	for _, positions := range parts {
		o := c.newPart(b, positions)
		if c.checkMessage(len(o.body)) != nil {
			o.release()
			wg.Go(func() { c.runPart(ctx, b, positions, errs) })
			continue
		}
		o.shared = done
		p := batchPart{positions: positions, op: o, attempt: c.launch(o, nil, c.now())}
		if p.err != nil {
			failed(p, p.err)
			continue
		}
		waiting = append(waiting, p)
	}
	canceled := ctx.Done()
	for len(waiting) > 0 {
		select {
		case cl := <-done:
			i := slices.IndexFunc(waiting, func(p batchPart) bool { return p.op.call == cl })
			p := waiting[i]
			waiting = slices.Delete(waiting, i, i+1)
			answer, err := p.op.outcome()
			if err != nil {
				failed(p, err)
				continue
			}
			b.take(answer, nil, p.positions, errs)
			p.op.release()
		case <-canceled:
			canceled = nil
			kept := waiting[:0]
			for _, p := range waiting {
				if err := p.op.withdraw(ctx, p.attempt); err != nil {
					failed(p, err)
				} else {
					kept = append(kept, p)
				}
			}
			waiting = kept
		}
	}
}

// newPart encodes the operation for one node.
func (c *Client) newPart(b *batch, positions []int) *operation {
	o := newOperation(b.kind, b.write)
	o.namespace, o.key, o.from, o.ownID = b.namespace, b.key(positions[0]), b.from, b.ownID
	o.deadline, o.sweep = b.deadline, b.sweep
	o.body = b.encode(o.body[:0], positions)
	if b.requestID != "" {
		o.rename(b.requestID)
	}
	return o
}

func (c *Client) runPart(ctx context.Context, b *batch, positions []int, errs []error) {
	o := c.newPart(b, positions)
	defer o.release()
	err := c.checkMessage(len(o.body))
	if err != nil {
		if parts := c.splitGroups(b, positions); len(parts) > 1 {
			for _, group := range parts {
				c.runPart(ctx, b, group, errs)
			}
			return
		}
	}
	var answer []byte
	if err == nil {
		answer, err = c.complete(ctx, o, c.launch(o, nil, c.now()))
		if b.whole {
			b.requestID = o.requestID
		}
	}
	b.take(answer, err, positions, errs)
}

// take gives the items of a part their results.
func (b *batch) take(answer []byte, err error, positions []int, errs []error) {
	if err == nil {
		err = b.decodeAnswer(answer, positions, errs)
	}
	if err != nil {
		for _, i := range positions {
			errs[i] = err
		}
	}
}

func (b *batch) decodeAnswer(answer []byte, positions []int, errs []error) error {
	if b.at.revision != 0 {
		if err := b.at.served(readRevision(answer)); err != nil {
			return err
		}
	}
	values := slab{items: len(positions)}
	n, err := decodeItems(answer, func(n int, itemErr error, answer []byte) error {
		if n >= len(positions) {
			return malformed("batch with too many results")
		}
		i := positions[n]
		if itemErr == nil {
			itemErr = b.decode(i, answer, &values)
		}
		if errs[i] = itemErr; itemErr == nil {
			return nil
		}
		var broken malformedError
		if errors.As(itemErr, &broken) {
			return broken
		}
		return nil
	})
	if err == nil && n != len(positions) {
		err = malformed("batch with too few results")
	}
	if err != nil {
		return unreadable(b.write, err)
	}
	return nil
}

// checkMessage refuses what the server's message limit would refuse.
func (c *Client) checkMessage(bodyBytes int) error {
	limit := c.topology().limits.messageBytes
	if bodyBytes+opOverheadBytes <= limit {
		return nil
	}
	return newError(CodeMessageTooLarge, "the batch or transaction is too large for one message", "limit_bytes", limit, "actual_bytes", bodyBytes+opOverheadBytes)
}
