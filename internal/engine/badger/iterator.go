package badger

import (
	"bytes"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// iterator bounds a Badger iterator. It owns its transaction.
type iterator struct {
	txn   *badgerdb.Txn
	it    *badgerdb.Iterator
	o     engine.IterOptions
	item  *badgerdb.Item // nil when not valid
	err   error
	value []byte // buffer for values out of value logs
	got   []byte
	keep  func([]byte) error
}

func newIterator(txn *badgerdb.Txn, o engine.IterOptions) *iterator {
	b := badgerdb.IteratorOptions{
		PrefetchValues: o.Prefetch > 1 && !o.KeysOnly,
		PrefetchSize:   o.Prefetch,
		Reverse:        o.Reverse,
		AllVersions:    o.AllVersions,
		Prefix:         commonPrefix(o),
	}
	i := &iterator{txn: txn, it: txn.NewIterator(b), o: o}
	i.keep = i.take
	i.rewind()
	return i
}

// commonPrefix returns a prefix of all keys of the range, by which Badger
// leaves out tables. In reverse Badger starts at the upper bound itself and
// ends if that lacks the prefix, so there the bound must have it too.
func commonPrefix(o engine.IterOptions) []byte {
	n := 0
	for n < len(o.Lower) && n < len(o.Upper) && o.Lower[n] == o.Upper[n] {
		n++
	}
	prefix := o.Lower[:n]
	if o.Reverse || len(o.Lower) <= n {
		return prefix
	}
	if longer := o.Lower[:n+1]; bytes.Equal(keyspace.PrefixEnd(longer), o.Upper) {
		return longer
	}
	return prefix
}

func (i *iterator) rewind() {
	switch {
	case !i.o.Reverse:
		i.seek(i.o.Lower)
	case i.o.Upper == nil:
		i.it.Rewind()
		i.settle()
	default:
		i.seek(i.o.Upper)
	}
}

// Seek goes to key, or the nearest after it, within the range.
func (i *iterator) Seek(key []byte) {
	switch {
	case !i.o.Reverse && bytes.Compare(key, i.o.Lower) < 0:
		key = i.o.Lower
	case i.o.Reverse && i.o.Upper != nil && bytes.Compare(key, i.o.Upper) > 0:
		key = i.o.Upper
	}
	i.seek(key)
}

// seek takes a key within the bounds, both inclusive. Badger takes an empty
// key for the start.
func (i *iterator) seek(key []byte) {
	if len(key) == 0 && i.o.Reverse {
		i.item = nil // nothing is at or below the empty key
		return
	}
	i.it.Seek(key)
	i.settle()
}

// settle takes over Badger's position if it is within the range.
func (i *iterator) settle() {
	i.item = nil
	for i.it.Valid() {
		item := i.it.Item()
		key := item.Key()
		switch {
		case i.o.Reverse && i.o.Upper != nil && bytes.Compare(key, i.o.Upper) >= 0:
			i.it.Next()
			continue
		case i.o.Reverse && bytes.Compare(key, i.o.Lower) < 0:
			return
		case !i.o.Reverse && i.o.Upper != nil && bytes.Compare(key, i.o.Upper) >= 0:
			return
		}
		i.item = item
		return
	}
}

// Next moves on by one key, or one version with AllVersions.
func (i *iterator) Next() {
	if i.item == nil {
		return
	}
	i.it.Next()
	i.settle()
}

func (i *iterator) Valid() bool { return i.item != nil }

func (i *iterator) Key() []byte { return i.item.Key() }

func (i *iterator) Revision() keyspace.Revision { return keyspace.Revision(i.item.Version()) }

// Deleted reads Badger's mark. Its TTL is never set, so an item that is
// deleted or expired is deleted.
func (i *iterator) Deleted() bool { return i.item.IsDeletedOrExpired() }

// Value fetches the current value. An unreadable one is fault.Corruption and
// does not end the iteration.
func (i *iterator) Value() ([]byte, error) {
	if i.Deleted() {
		return nil, nil
	}
	i.got = nil
	if err := i.item.Value(i.keep); err != nil {
		return nil, fmt.Errorf("read value from badger: %w", err)
	}
	if unreadable(i.item, i.got) {
		return nil, lostValue(i.item)
	}
	return i.got, nil
}

func (i *iterator) take(value []byte) error {
	if inline(i.item, value) {
		i.got = value
		return nil
	}
	i.value = append(i.value[:0], value...)
	i.got = i.value
	return nil
}

func (i *iterator) Err() error { return i.err }

// Close ends the iteration.
func (i *iterator) Close() {
	i.item = nil
	i.it.Close()
	i.txn.Discard()
}
