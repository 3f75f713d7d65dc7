package collections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"kvstore/client"
)

// Dictionary is a map from K to V. It is used by many goroutines, and by many
// programs at once. Keys are kept in order: texts by their bytes, numbers by size.
type Dictionary[K Key, V any] struct {
	c      *client.Client
	prefix string
	codec  Codec[V]
	o      options
}

// NewDictionary returns the dictionary of a name, with values in JSON.
func NewDictionary[K Key, V any](c *client.Client, name string, opts ...Option) (*Dictionary[K, V], error) {
	return NewDictionaryOf[K](c, name, JSON[V]{}, opts...)
}

// NewDictionaryOf is NewDictionary with another codec.
func NewDictionaryOf[K Key, V any](c *client.Client, name string, codec Codec[V], opts ...Option) (*Dictionary[K, V], error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return &Dictionary[K, V]{c: c, prefix: "dict/" + name + "/", codec: codec, o: optionsOf(opts)}, nil
}

// Entry is one of a Dictionary.
type Entry[K Key, V any] struct {
	Key   K
	Value V
	// Revision is that of the write of this value.
	Revision uint64
}

// KeyOf is the store's key of an entry, for watches and transactions beside this
// package.
func (d *Dictionary[K, V]) KeyOf(k K) string { return d.prefix + encodeKey(k) }

// Get returns the value of a key, and whether there is one.
func (d *Dictionary[K, V]) Get(ctx context.Context, k K) (V, bool, error) {
	rec, err := d.c.Get(ctx, d.KeyOf(k), d.o.in())
	return d.value(rec, err)
}

func (d *Dictionary[K, V]) value(rec client.Record, err error) (v V, ok bool, _ error) {
	switch {
	case errors.Is(err, client.ErrNotFound):
		return v, false, nil
	case err != nil:
		return v, false, err
	}
	if v, err = d.codec.Decode(rec.Value); err != nil {
		return v, false, fmt.Errorf("collections: value of key %q: %w", rec.Key, err)
	}
	return v, true, nil
}

// Set writes the value of a key, whatever it was.
func (d *Dictionary[K, V]) Set(ctx context.Context, k K, v V, opts ...client.PutOption) error {
	b, err := d.codec.Encode(v)
	if err != nil {
		return fmt.Errorf("collections: value of key %v: %w", k, err)
	}
	_, err = d.c.Put(ctx, d.KeyOf(k), b, d.put(opts)...)
	return err
}

func (d *Dictionary[K, V]) put(opts []client.PutOption, more ...client.PutOption) []client.PutOption {
	all := append([]client.PutOption{client.WithContentType(d.codec.ContentType())}, opts...)
	return append(append(all, d.o.in()), more...)
}

// TryAdd writes the value of a key that has none; false says that it has one.
func (d *Dictionary[K, V]) TryAdd(ctx context.Context, k K, v V, opts ...client.PutOption) (bool, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	return d.replace(ctx, k, v, 0, opts)
}

// replace writes a value on condition of the revision that was seen, 0 for none.
func (d *Dictionary[K, V]) replace(ctx context.Context, k K, v V, seen uint64, opts []client.PutOption) (bool, error) {
	b, err := d.codec.Encode(v)
	if err != nil {
		return false, fmt.Errorf("collections: value of key %v: %w", k, err)
	}
	condition := client.IfRevision(seen)
	if seen == 0 {
		condition = client.IfAbsent()
	}
	w := write{c: d.c, in: d.o.in(), key: d.KeyOf(k), seen: seen, op: newOp()}
	w.commit = func(ctx context.Context) (bool, error) {
		_, err := d.c.Put(ctx, w.key, b, d.put(opts, marked(w.op), condition)...)
		if errors.Is(err, client.ErrConditionFailed) {
			return false, nil
		}
		return err == nil, err
	}
	return w.settle(ctx)
}

// Update replaces a value by what fn makes of it, as if nobody else wrote
// meanwhile: fn runs again when somebody did, and should do nothing else. An error
// of fn ends it, and nothing is written then.
func (d *Dictionary[K, V]) Update(ctx context.Context, k K, fn func(old V, exists bool) (V, error), opts ...client.PutOption) (V, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var none V
	for n := 0; ; n++ {
		rec, err := d.c.Get(ctx, d.KeyOf(k), d.o.in())
		old, exists, err := d.value(rec, err)
		if err != nil {
			return none, err
		}
		v, err := fn(old, exists)
		if err != nil {
			return none, err
		}
		done, err := d.replace(ctx, k, v, rec.Revision, opts)
		switch {
		case err != nil:
			return none, err
		case done:
			return v, nil
		}
		if err := pause(ctx, n); err != nil {
			return none, fmt.Errorf("collections: key %v was written by others until the time was over, in %d attempts; nothing was written: %w", k, n+1, err)
		}
	}
}

// Remove deletes a key, and says whether it was there.
func (d *Dictionary[K, V]) Remove(ctx context.Context, k K) (bool, error) {
	res, err := d.c.Delete(ctx, d.KeyOf(k), d.o.in())
	return res.Existed, err
}

// Range yields all entries in the order of their keys, from one snapshot. Of the
// options WithLimit, Reverse, WithTagFilter and those of the past have a meaning. An
// error is yielded once and ends it.
func (d *Dictionary[K, V]) Range(ctx context.Context, opts ...client.ListOption) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		for rec, err := range d.c.Scan(ctx, d.list(opts)...) {
			var e Entry[K, V]
			if err == nil {
				e, err = d.entry(rec)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (d *Dictionary[K, V]) list(opts []client.ListOption) []client.ListOption {
	return append(opts[:len(opts):len(opts)], client.WithPrefix(d.prefix), d.o.in())
}

func (d *Dictionary[K, V]) entry(rec client.Record) (e Entry[K, V], err error) {
	if e.Key, err = decodeKey[K](strings.TrimPrefix(rec.Key, d.prefix)); err != nil {
		return e, err
	}
	e.Value, _, err = d.value(rec, nil)
	e.Revision = rec.Revision
	return e, err
}

// Count counts the entries.
func (d *Dictionary[K, V]) Count(ctx context.Context) (uint64, error) {
	return d.c.Count(ctx, d.list(nil)...)
}

// GetTx is Get in a transaction.
func (d *Dictionary[K, V]) GetTx(tx *client.Tx, k K) (V, bool, error) {
	rec, err := tx.Get(d.KeyOf(k), d.o.in())
	return d.value(rec, err)
}

// SetTx is Set in a transaction.
func (d *Dictionary[K, V]) SetTx(tx *client.Tx, k K, v V, opts ...client.PutOption) error {
	b, err := d.codec.Encode(v)
	if err != nil {
		return fmt.Errorf("collections: value of key %v: %w", k, err)
	}
	tx.Put(d.KeyOf(k), b, d.put(opts)...)
	return nil
}

// RemoveTx is Remove in a transaction.
func (d *Dictionary[K, V]) RemoveTx(tx *client.Tx, k K) { tx.Delete(d.KeyOf(k), d.o.in()) }
