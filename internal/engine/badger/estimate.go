package badger

import (
	"bytes"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// EstimateBytes adds up what memtables and tables have of an instance.
//
// Badger knows of each table its first and last key, the uncompressed size of
// its blocks, and their size on disk with the value log entries they point to,
// which include the keys. Of a table that has the instance only, the larger of the
// two is at least half of the truth, and all of it where values are either in the
// table or not.
//
// Of a table with other instances, and one of level 0 has all that were written to,
// the first keys of its blocks tell the share (see tableindex.go). What records
// have in value logs, which no index tells, and what blocks save on keys is taken
// from records of the instance, whose values are not read: all of a small one, some
// of a large one. That is wrong where a large instance of which most is in such
// tables has large values beside many small ones, each in a range of keys of its
// own, and the sample meets one kind only.
//
// What Badger turns into a table or rewrites at this moment may be counted twice,
// and deletions and what they hide are counted until they are compacted away.
func (e *Engine) EstimateBytes(i keyspace.InstanceID) int64 {
	sum := e.unflushed.bytes(i)
	s := shares{engine: e, lower: keyspace.AppendInstance(nil, i)}
	s.upper = keyspace.PrefixEnd(s.lower)
	for _, t := range e.db.Tables() {
		left, right := userKey(t.Left), userKey(t.Right)
		switch {
		case bytes.Compare(right, s.lower) < 0 || s.upper != nil && bytes.Compare(left, s.upper) >= 0:
		case bytes.HasPrefix(left, s.lower) && bytes.HasPrefix(right, s.lower):
			sum += wholeTable(&t)
			s.large = true
		default:
			s.add(&t)
		}
	}
	return sum + s.bytes()
}

func wholeTable(t *badgerdb.TableInfo) int64 {
	return max(int64(t.OnDiskSize), int64(t.UncompressedSize))
}

// userKey cuts the version off a key of a table.
func userKey(key []byte) []byte { return key[:max(0, len(key)-versionBytes)] }

// shares finds out how much of tables belongs to an instance.
type shares struct {
	engine       *Engine
	lower, upper []byte // the keys of the instance
	large        bool   // it has tables of its own
	guessed      int64  // of tables without an index
	stored       float64
	widest       stretch // of all tables
}

// stretch is the blocks of a table that begin in the instance.
type stretch struct {
	index    *tableIndex
	from, to int
}

// add takes in a table with several instances.
func (s *shares) add(t *badgerdb.TableInfo) {
	index, err := readTableIndex(s.engine.dir, t.ID)
	if err != nil { // compacted away meanwhile, or unreadable: readers will tell
		s.guessed += wholeTable(t) / 2
		return
	}
	from, to := index.search(s.lower), index.count()
	if s.upper != nil {
		to = index.search(s.upper)
	}
	size := s.weight(index, from, to)
	// The block before may end in the instance and the last one in another: half of
	// them counts.
	if from > 0 {
		size += s.weight(index, from-1, from) / 2
	}
	if to > from && to < index.count() {
		size -= s.weight(index, to-1, to) / 2
	}
	s.stored += size / s.weight(index, 0, index.count()) * float64(t.UncompressedSize)
	if s.widest.index == nil || to-from > s.widest.to-s.widest.from {
		s.widest = stretch{index, from, to}
	}
}

// weight is about what blocks have uncompressed: a block that is shorter was
// full before it was compressed, one that is longer has one record.
func (s *shares) weight(index *tableIndex, lower, upper int) float64 {
	return float64(max(index.bytes(lower, upper), int64(upper-lower)*int64(s.engine.db.Opts().BlockSize)))
}

// bytes is what the records in those tables have.
func (s *shares) bytes() int64 {
	if s.stored == 0 {
		return s.guessed
	}
	return s.guessed + int64(s.stored*s.ratio())
}

const (
	// smallStored and fewRecords bound an instance that is walked over.
	smallStored = 256 << 10
	fewRecords  = 4096
	// Of a larger one there are samples, each of so many records.
	samples       = 8
	sampleRecords = 16
)

// ratio is how many times what they take in blocks the instance's records have, 0
// when there are none.
func (s *shares) ratio() float64 {
	it := newIterator(s.engine.db.NewTransactionAt(uint64(keyspace.MaxRevision), false), engine.IterOptions{
		Lower: s.lower, Upper: s.upper, At: keyspace.MaxRevision, AllVersions: true, KeysOnly: true})
	defer it.Close()
	m := measure{threshold: s.engine.options.ValueThreshold}
	if !s.large && s.stored < smallStored {
		m.take(it, fewRecords)
		if !it.Valid() {
			return m.ratio()
		}
	}
	m.records, m.stored = 0, 0
	for n := range samples {
		it.Seek(s.widest.key(n))
		m.take(it, sampleRecords)
	}
	return m.ratio()
}

// key is the n-th of the places where samples begin.
func (s *stretch) key(n int) []byte {
	if s.from == s.to {
		return nil
	}
	return userKey(s.index.key(s.from + n*(s.to-s.from)/samples))
}

// measure is the bytes of records and what tables take for them.
type measure struct {
	threshold       int64
	records, stored int64
}

const (
	// entryBytes is what a table has of a record beside key and value: lengths,
	// marks, version and place.
	entryBytes = 4 + 3 + versionBytes + 4
	// pointerBytes stand in a table for a value in a value log.
	pointerBytes = 12
	// blockRecords is about how many records share the beginning of their keys.
	blockRecords = sampleRecords
)

// take measures the next records.
func (m *measure) take(it *iterator, most int) {
	var first []byte
	for n := 0; n < most && it.Valid(); n++ {
		key, value := it.Key(), it.item.ValueSize()
		if n%blockRecords == 0 {
			first = append(first[:0], key...)
		}
		m.records += recordBytes(len(key), int(value))
		if value >= m.threshold {
			value = pointerBytes
		}
		m.stored += value + int64(entryBytes+len(key)-shared(first, key))
		it.Next()
	}
}

func (m *measure) ratio() float64 {
	if m.stored == 0 {
		return 0
	}
	return float64(m.records) / float64(m.stored)
}

// shared is the length of the common beginning.
func shared(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
