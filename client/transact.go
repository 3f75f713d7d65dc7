package client

import (
	"bytes"
	"context"
	"errors"

	"kvstore/internal/env/system"
)

// Transact runs an interactive transaction on keys of any groups: fn reads and
// writes through tx as if it were alone, and what it wrote becomes visible at
// once when fn returns nil and nothing that it read has changed meanwhile.
// Otherwise fn runs again, after a pause that grows with jitter, until ctx ends
// (without a deadline, for Config.Timeout). fn may therefore run several times
// and should do nothing else than its work on tx.
//
//	err := c.Transact(ctx, func(tx *client.Tx) error {
//		from, err := tx.Get("{bank}alice")
//		if err != nil {
//			return err
//		}
//		...
//		tx.Put("{bank}alice", less)
//		tx.Put("{bank}bob", more)
//		return nil
//	})
//
// Nothing is locked: reads note the revision they saw, writes wait in tx, and the
// commit is one conditional transaction (see Txn) on exactly what was read,
// absent keys included. What commits is serializable, also where nothing was
// written: then the reads were of one moment. While fn runs, two reads may be of
// different moments; such a run does not commit, but fn should not depend on
// relations between keys in a way that never ends.
//
// An error of fn ends the transaction; nothing was written then. ErrUnknownOutcome
// says, as for every transaction, that the commit was sent, its answer lost, and ctx
// ended before it could be found out. Conflicts until
// the end end with ErrDeadlineExceeded or ErrCanceled, and nothing was written.
func (c *Client) Transact(ctx context.Context, fn func(tx *Tx) error) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for attempt := 0; ; attempt++ {
		tx := &Tx{c: c, ctx: ctx, reads: make(map[txKey]*txRead), writes: make(map[txKey]int)}
		if err := fn(tx); err != nil {
			return err
		}
		done, err := tx.commit()
		if done || err != nil {
			return err
		}
		if err := system.Pause(ctx, jitter(c.cfg.RetryBase, c.cfg.RetryMax, attempt)); err != nil {
			return wrapError(contextError(err).Code, err, "the transaction met conflicts until its time was over; nothing was written",
				"attempts", attempt+1)
		}
	}
}

// Tx is one run of an interactive transaction. It is used by one goroutine, and
// not after fn returned.
type Tx struct {
	c     *Client
	ctx   context.Context
	reads map[txKey]*txRead
	order []txKey // of reads
	// writes are the positions in ops by key: the last write of a key counts.
	writes map[txKey]int
	ops    []Op
	err    error // of a touch; the transaction does not commit
}

type txKey struct{ namespace, key string }

// txRead is what was read of a key; Revision 0 when it was not there.
type txRead struct {
	record Record
	err    error
	values bool
}

// Get reads a key, after the transaction's own writes: of a key it has put, the
// record has what was put, and neither version nor revision; of one it has touched,
// likewise, beside what was there. A key that is not there is ErrNotFound. A key is
// read once; later reads answer the same.
func (t *Tx) Get(key string, opts ...GetOption) (Record, error) {
	call := readCall{namespace: t.c.cfg.Namespace}
	for _, opt := range opts {
		opt.applyGet(&call)
	}
	k := txKey{call.namespace, key}
	i, written := t.writes[k]
	if written && t.ops[i].kind != opTouch {
		return t.ops[i].buffered()
	}
	rec, err := t.read(k, &call, opts)
	if written && err == nil {
		rec = t.ops[i].touch.item.touched(rec)
	}
	return rec, err
}

// read reads what is stored of a key.
func (t *Tx) read(k txKey, call *readCall, opts []GetOption) (Record, error) {
	seen := t.reads[k]
	if seen != nil && (seen.values || call.keysOnly || seen.err != nil) {
		rec := seen.record
		rec.Value = bytes.Clone(rec.Value)
		return rec, seen.err
	}
	rec, err := t.c.Get(t.ctx, k.key, append(opts[:len(opts):len(opts)], InNamespace(call.namespace))...)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return rec, err
	}
	if seen == nil {
		seen = &txRead{}
		t.reads[k], t.order = seen, append(t.order, k)
	} else if seen.record.Revision != rec.Revision {
		// The value belongs to another revision than was read before: the first
		// one is what the commit checks, and it will not hold.
		return rec, err
	}
	seen.record, seen.err, seen.values = rec, err, !call.keysOnly
	seen.record.Value = bytes.Clone(rec.Value)
	return rec, err
}

// buffered is what a write of this transaction makes of its key.
func (o *Op) buffered() (Record, error) {
	if o.kind == opDelete {
		return Record{}, newError(CodeNotFound, "the transaction deletes the key", "key", quoteKey(o.key))
	}
	i := &o.put.item
	return Record{Key: i.Key, Value: i.Value, ContentType: i.ContentType, Encoding: i.Encoding, ExpiresAt: i.ExpiresAt,
		Checksum: itemChecksum(i), Tags: i.Tags, Metadata: i.Metadata, Size: uint64(len(i.Value))}, nil
}

// Put writes a key at the commit. value must not be changed before that.
func (t *Tx) Put(key string, value []byte, opts ...PutOption) { t.write(OpPut(key, value, opts...)) }

// Delete deletes a key at the commit.
func (t *Tx) Delete(key string, opts ...DeleteOption) { t.write(OpDelete(key, opts...)) }

func (t *Tx) write(o Op) {
	k := t.keyOf(&o)
	if i, ok := t.writes[k]; ok {
		t.ops[i] = o
		return
	}
	t.writes[k] = len(t.ops)
	t.ops = append(t.ops, o)
}

func (t *Tx) keyOf(o *Op) txKey {
	k := txKey{o.namespace(), o.key}
	if k.namespace == "" {
		k.namespace = t.c.cfg.Namespace
	}
	return k
}

// commit executes what was written if all that was read is still so; done is
// false when it is not. One read alone needs no commit.
func (t *Tx) commit() (done bool, err error) {
	if t.err != nil {
		return false, t.err
	}
	if len(t.ops) == 0 && len(t.order) <= 1 {
		return true, nil
	}
	txn := t.c.Txn(t.ctx).Then(t.ops...)
	for _, k := range t.order {
		key := Key(k.key).In(k.namespace)
		if seen := t.reads[k]; seen.err != nil {
			txn.If(key.Absent())
		} else {
			txn.If(key.Revision().Eq(seen.record.Revision))
		}
	}
	res, err := txn.Commit()
	if err != nil {
		return false, err
	}
	return res.Succeeded, nil
}
