package badger

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// unflushed counts what Badger's memtables hold of each instance, since Badger
// does not tell: what was written while a memtable was the newest one counts as
// its own, until its log is gone, when all of it is in a table. The logs are
// numbered without gaps, so that a look for the next number tells of a new one.
//
// A write that several memtables took counts as much in each of them. What the
// memtables of an earlier process had, whose logs Badger turns into tables right
// after it opened them, and what rewrites of value logs add are not counted.
type unflushed struct {
	mu   sync.Mutex
	logs series
	// tables are those with a log that is there still, oldest first; mu must be
	// held.
	tables []memtable
}

type memtable struct {
	number uint32
	bytes  map[keyspace.InstanceID]int64
}

// begin starts from the newest of the logs that are there.
func (u *unflushed) begin(dir string) error {
	u.logs.path = func(n uint32) string { return memtablePath(dir, n) }
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list badger directory: %w", err)
	}
	for _, entry := range entries {
		u.logs.note(entry.Name(), memtableSuffix)
	}
	u.add(u.logs.newest)
	return nil
}

func (u *unflushed) add(number uint32) {
	u.tables = append(u.tables, memtable{number, make(map[keyspace.InstanceID]int64)})
}

// count takes in writes that Badger has.
func (u *unflushed) count(writes []engine.Write) {
	u.mu.Lock()
	defer u.mu.Unlock()
	before := u.logs.newest
	if u.logs.advance() {
		for n := before + 1; n <= u.logs.newest; n++ {
			u.add(n)
		}
	}
	taken := u.tables[len(u.tables)-1-int(u.logs.newest-before):]
	for len(writes) > 0 {
		inst, size, n := sameInstance(writes)
		for i := range taken {
			taken[i].bytes[inst] += size / int64(len(taken))
		}
		writes = writes[n:]
	}
	if len(taken) > 1 {
		u.prune()
	}
}

// sameInstance returns the size of the writes at the beginning that have an
// instance in common, and how many they are.
func sameInstance(writes []engine.Write) (inst keyspace.InstanceID, size int64, n int) {
	inst = instanceOf(writes[0].Key)
	for ; n < len(writes) && instanceOf(writes[n].Key) == inst; n++ {
		size += recordBytes(len(writes[n].Key), len(writes[n].Value))
	}
	return inst, size, n
}

// instanceOf is 0, of which there is nothing, for a key without an instance.
func instanceOf(key []byte) keyspace.InstanceID {
	if len(key) < keyspace.InstanceBytes {
		return 0
	}
	return keyspace.InstanceID(binary.BigEndian.Uint64(key))
}

// recordBytes is the size of a record as EstimateBytes counts it.
func recordBytes(key, value int) int64 { return int64(max(0, key-keyspace.InstanceBytes) + value) }

// prune forgets memtables that became tables; the newest one stays.
func (u *unflushed) prune() {
	for len(u.tables) > 1 {
		if _, err := os.Stat(u.logs.path(u.tables[0].number)); err == nil {
			return
		}
		u.tables = u.tables[1:]
	}
}

func (u *unflushed) bytes(inst keyspace.InstanceID) (sum int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.prune()
	for i := range u.tables {
		sum += u.tables[i].bytes[inst]
	}
	return sum
}
