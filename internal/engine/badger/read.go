package badger

import (
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/engine"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// reader reads through Badger transactions, one per revision asked for; the
// last one is kept, since most readers ask for one revision only.
type reader struct {
	db  *badgerdb.DB
	txn *badgerdb.Txn
	at  keyspace.Revision

	// What value captures for the callback, so that it needs no closure of its
	// own per call.
	item  *badgerdb.Item
	value []byte
	keep  func([]byte) error
}

func (r *reader) transaction(at keyspace.Revision) *badgerdb.Txn {
	if r.txn == nil || r.at != at {
		r.Close()
		r.txn, r.at = r.db.NewTransactionAt(uint64(at), false), at
	}
	return r.txn
}

// Get returns the newest version at or below at.
func (r *reader) Get(key []byte, at keyspace.Revision) ([]byte, keyspace.Revision, bool, error) {
	item, err := r.transaction(at).Get(key)
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("read from badger: %w", err)
	}
	if r.keep == nil {
		r.keep = r.take
	}
	r.item, r.value = item, nil
	if err := item.Value(r.keep); err != nil {
		return nil, 0, false, fmt.Errorf("read value from badger: %w", err)
	}
	if unreadable(item, r.value) {
		return nil, 0, false, lostValue(item)
	}
	return r.value, keyspace.Revision(item.Version()), true, nil
}

// take keeps the value beyond Badger's callback.
func (r *reader) take(value []byte) error {
	r.value = value
	if !inline(r.item, value) {
		r.value = append(make([]byte, 0, len(value)), value...)
	}
	return nil
}

// inline reports whether value came from the LSM tree: Badger copied it for
// this item then, and it stays valid as long as the item. A value from a value
// log is mapped memory, valid only inside the callback.
func inline(item *badgerdb.Item, value []byte) bool {
	return item.EstimatedSize() == int64(len(item.Key())+len(value))
}

// unreadable reports whether Badger could not read the value: it logs the
// error and returns nothing. Empty values are never in a value log.
func unreadable(item *badgerdb.Item, value []byte) bool {
	return len(value) == 0 && item.EstimatedSize() > int64(len(item.Key()))
}

func lostValue(item *badgerdb.Item) error {
	return fault.New(fault.Corruption, "value cannot be read from its value log",
		"key", fmt.Sprintf("%x", item.Key()), "revision", keyspace.Revision(item.Version()))
}

// Close may be followed by more reads.
func (r *reader) Close() {
	if r.txn != nil {
		r.txn.Discard()
		r.txn = nil
	}
}

// Iterate returns an iterator on the first key of its range.
func (r *reader) Iterate(o engine.IterOptions) engine.Iterator {
	if o.Reverse && o.AllVersions {
		panic("badger: an iterator over all versions cannot be reversed")
	}
	return newIterator(r.db.NewTransactionAt(uint64(o.At), false), o)
}
