package collections

import (
	"context"
	"errors"
	"fmt"

	"kvstore/client"
)

// TryDequeue takes the first element; false says that there is none. An element
// that the codec cannot read is an error and stays; Discard removes it.
func (q *Queue[T]) TryDequeue(ctx context.Context) (item T, ok bool, err error) {
	err = q.takeFirst(ctx, func(rec client.Record) (err error) {
		item, err = q.decode(rec)
		ok = err == nil
		return err
	}, func() { ok = false })
	if err != nil || !ok {
		var none T
		return none, false, err
	}
	return item, true, nil
}

// Discard takes the first element without reading it; false says that there is
// none.
func (q *Queue[T]) Discard(ctx context.Context) (ok bool, err error) {
	err = q.takeFirst(ctx, func(client.Record) error {
		ok = true
		return nil
	}, func() { ok = false })
	return ok && err == nil, err
}

// takeFirst moves the head past the element that got is given; none is called
// instead when there is none. Both may be called again.
func (q *Queue[T]) takeFirst(ctx context.Context, got func(client.Record) error, none func()) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	release, err := take(ctx, q.taking)
	if err != nil {
		return err
	}
	defer release()
	return q.move(ctx, q.head(), func(ctx context.Context, next uint64, seen client.Record) (step, error) {
		rec, here, again, err := q.first(ctx, next, seen)
		switch {
		case err != nil:
			return step{}, err
		case !here:
			none()
			return step{again: again}, nil
		}
		if err := got(rec); err != nil {
			return step{}, err
		}
		return step{next: next + 1, ops: []client.Op{client.OpDelete(rec.Key, q.o.in())}}, nil
	})
}

// first reads the element at the head. Where it is not there the queue was empty,
// unless the head has moved meanwhile: again.
func (q *Queue[T]) first(ctx context.Context, next uint64, seen client.Record) (rec client.Record, here, again bool, err error) {
	rec, err = q.c.Get(ctx, q.element(next), q.o.in())
	if err == nil || !errors.Is(err, client.ErrNotFound) {
		return rec, err == nil, false, err
	}
	now, err := q.c.Get(ctx, q.head(), client.KeysOnly(), q.o.in())
	if errors.Is(err, client.ErrNotFound) {
		err = nil
	}
	return rec, false, now.Revision != seen.Revision, err
}

func (q *Queue[T]) decode(rec client.Record) (T, error) {
	item, err := q.codec.Decode(rec.Value)
	if err != nil {
		return item, fmt.Errorf("collections: element %q: %w", rec.Key, err)
	}
	return item, nil
}

// Peek returns the first element and leaves it; false says that there is none.
func (q *Queue[T]) Peek(ctx context.Context) (item T, ok bool, err error) {
	err = q.c.Transact(ctx, func(tx *client.Tx) (err error) {
		item, ok, err = q.PeekTx(tx)
		return err
	})
	return item, ok, err
}

// Dequeue takes the first element, and waits for one until ctx ends.
func (q *Queue[T]) Dequeue(ctx context.Context) (T, error) {
	for {
		item, ok, err := q.TryDequeue(ctx)
		if err != nil || ok {
			return item, err
		}
		item, ok, err = q.await(ctx)
		switch {
		case ok:
			return item, nil
		case ctx.Err() != nil:
			return item, ctx.Err()
		case err != nil && !errors.Is(err, client.ErrOutOfRange): // the watch fell behind: begin anew
			return item, err
		}
	}
}

// await tries again whenever the tail changes; the first update of a watch says
// that it has begun.
func (q *Queue[T]) await(ctx context.Context) (item T, ok bool, err error) {
	begun := false
	for u, err := range q.c.Watch(ctx, client.OnKey(q.tail()), client.KeysOnly(), q.o.in()) {
		if err != nil {
			return item, false, err
		}
		if begun && len(u.Events) == 0 {
			continue
		}
		begun = true
		if item, ok, err = q.TryDequeue(ctx); ok || err != nil {
			return item, ok, err
		}
	}
	return item, false, ctx.Err()
}

// TryDequeueTx is TryDequeue in a transaction.
func (q *Queue[T]) TryDequeueTx(tx *client.Tx) (item T, ok bool, err error) {
	next, item, ok, err := q.peek(tx)
	if ok {
		tx.Delete(q.element(next), q.o.in())
		q.setTx(tx, q.head(), next+1)
	}
	return item, ok, err
}

// PeekTx is Peek in a transaction.
func (q *Queue[T]) PeekTx(tx *client.Tx) (item T, ok bool, err error) {
	_, item, ok, err = q.peek(tx)
	return item, ok, err
}

func (q *Queue[T]) peek(tx *client.Tx) (next uint64, item T, ok bool, err error) {
	if next, err = point(tx.Get(q.head(), q.o.in())); err != nil {
		return 0, item, false, err
	}
	rec, err := tx.Get(q.element(next), q.o.in())
	if errors.Is(err, client.ErrNotFound) {
		return next, item, false, nil
	}
	if err == nil {
		item, err = q.decode(rec)
	}
	return next, item, err == nil, err
}
