package collections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kvstore/client"
)

// Queue is a first-in, first-out list of T. It is used by many goroutines, and by
// many programs at once.
//
// Elements are numbered, from 1. Two records, the pointers, have the number of the
// next element to be added (tail) and taken (head); whoever adds or takes changes
// the pointer on condition of the revision it was read at, in one transaction with
// the element. So producers meet producers and consumers meet consumers, but not
// each other: an empty queue is a head whose element is not there. The goroutines
// of one Queue take turns, so that they do not meet each other in the store.
type Queue[T any] struct {
	c     *client.Client
	base  string
	codec Codec[T]
	o     options
	// A token is held by who adds, and another one by who takes.
	adding, taking chan struct{}
}

// NewQueue returns the queue of a name, with elements in JSON.
func NewQueue[T any](c *client.Client, name string, opts ...Option) (*Queue[T], error) {
	return NewQueueOf(c, name, JSON[T]{}, opts...)
}

// NewQueueOf is NewQueue with another codec.
func NewQueueOf[T any](c *client.Client, name string, codec Codec[T], opts ...Option) (*Queue[T], error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !strings.Contains(name, "{") {
		name = "{" + name + "}"
	}
	return &Queue[T]{c: c, base: "queue/" + name, codec: codec, o: optionsOf(opts),
		adding: make(chan struct{}, 1), taking: make(chan struct{}, 1)}, nil
}

func (q *Queue[T]) tail() string { return q.base + "/tail" }
func (q *Queue[T]) head() string { return q.base + "/head" }

func (q *Queue[T]) element(n uint64) string { return fmt.Sprintf("%s/e/%016x", q.base, n) }

// pointer is the value of head and tail.
type pointer struct {
	Next uint64 `json:"next"`
}

// point decodes a pointer; one that is not there is at the first element.
func point(rec client.Record, err error) (next uint64, _ error) {
	p := pointer{Next: 1}
	switch {
	case errors.Is(err, client.ErrNotFound):
		return 1, nil
	case err != nil:
		return 0, err
	}
	if err := json.Unmarshal(rec.Value, &p); err != nil || p.Next == 0 {
		return 0, fmt.Errorf("collections: key %q is no pointer of a queue: %w", rec.Key, err)
	}
	return p.Next, nil
}

func (p pointer) encode() []byte { return fmt.Appendf(nil, `{"next":%d}`, p.Next) }

// take holds a token until the function it returns is called.
func take(ctx context.Context, token chan struct{}) (release func(), err error) {
	select {
	case token <- struct{}{}:
		return func() { <-token }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// move changes a pointer by one transaction: plan says, for its value, what it
// becomes and what is written with it, or that there is nothing to do. It is asked
// again when others were faster.
func (q *Queue[T]) move(ctx context.Context, key string, plan func(ctx context.Context, next uint64, seen client.Record) (step, error)) error {
	for n := 0; ; n++ {
		rec, err := q.c.Get(ctx, key, q.o.in())
		next, err := point(rec, err)
		if err != nil {
			return err
		}
		s, err := plan(ctx, next, rec)
		switch {
		case err != nil:
			return err
		case s.next != 0:
			done, err := q.commit(ctx, key, rec.Revision, s)
			if done || err != nil {
				return err
			}
		case !s.again:
			return nil
		}
		if err := pause(ctx, n); err != nil {
			return fmt.Errorf("collections: %s was changed by others until the time was over, in %d attempts; nothing was written: %w", key, n+1, err)
		}
	}
}

// step is what is done to a pointer: it becomes next, with ops; 0 leaves it, and
// again looks once more.
type step struct {
	next  uint64
	again bool
	ops   []client.Op
}

// commit executes a step on condition of the pointer's revision.
func (q *Queue[T]) commit(ctx context.Context, key string, seen uint64, s step) (bool, error) {
	check := client.Key(key).In(q.o.namespace).Revision().Eq(seen)
	if seen == 0 {
		check = client.Key(key).In(q.o.namespace).Absent()
	}
	w := write{c: q.c, in: q.o.in(), key: key, seen: seen, op: newOp()}
	ops := append(s.ops, client.OpPut(key, pointer{s.next}.encode(), client.WithContentType("application/json"), q.o.in(), marked(w.op)))
	w.commit = func(ctx context.Context) (bool, error) {
		res, err := q.c.Txn(ctx).If(check).Then(ops...).Commit()
		return err == nil && res.Succeeded, err
	}
	return w.settle(ctx)
}

func (q *Queue[T]) encode(items []T) ([][]byte, error) {
	out := make([][]byte, len(items))
	for i, item := range items {
		b, err := q.codec.Encode(item)
		if err != nil {
			return nil, fmt.Errorf("collections: element: %w", err)
		}
		out[i] = b
	}
	return out, nil
}

func (q *Queue[T]) put(n uint64, value []byte) client.Op {
	return client.OpPut(q.element(n), value, client.WithContentType(q.codec.ContentType()), q.o.in())
}

// Enqueue adds elements behind all others, next to each other, in one step.
func (q *Queue[T]) Enqueue(ctx context.Context, items ...T) error {
	values, err := q.encode(items)
	if err != nil || len(items) == 0 {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	release, err := take(ctx, q.adding)
	if err != nil {
		return err
	}
	defer release()
	return q.move(ctx, q.tail(), func(_ context.Context, next uint64, _ client.Record) (step, error) {
		s := step{next: next + uint64(len(values))}
		for i, v := range values {
			s.ops = append(s.ops, q.put(next+uint64(i), v))
		}
		return s, nil
	})
}

// Count is the number of elements at one moment.
func (q *Queue[T]) Count(ctx context.Context) (n uint64, err error) {
	err = q.c.Transact(ctx, func(tx *client.Tx) (err error) {
		n, err = q.CountTx(tx)
		return err
	})
	return n, err
}

// EnqueueTx is Enqueue in a transaction.
func (q *Queue[T]) EnqueueTx(tx *client.Tx, items ...T) error {
	values, err := q.encode(items)
	if err != nil || len(items) == 0 {
		return err
	}
	next, err := point(tx.Get(q.tail(), q.o.in()))
	if err != nil {
		return err
	}
	for i, v := range values {
		tx.Put(q.element(next+uint64(i)), v, client.WithContentType(q.codec.ContentType()), q.o.in())
	}
	q.setTx(tx, q.tail(), next+uint64(len(values)))
	return nil
}

func (q *Queue[T]) setTx(tx *client.Tx, key string, next uint64) {
	tx.Put(key, pointer{next}.encode(), client.WithContentType("application/json"), q.o.in(), marked(newOp()))
}

// CountTx is Count in a transaction.
func (q *Queue[T]) CountTx(tx *client.Tx) (uint64, error) {
	tail, err := point(tx.Get(q.tail(), q.o.in()))
	if err != nil {
		return 0, err
	}
	head, err := point(tx.Get(q.head(), q.o.in()))
	if err != nil || head > tail { // of two moments: the transaction will not commit
		return 0, err
	}
	return tail - head, nil
}
