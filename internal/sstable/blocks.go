package sstable

import (
	"encoding/binary"

	"kvstore/internal/keyspace"
)

// blockTable is where the blocks of an open file are. There is one for every few
// kilobytes on disk, so each takes 16 bytes beside its position.
type blockTable struct {
	places []place
	// keys has of each block: instance (8 bytes), revision (8), key.
	keys []byte
}

type place struct {
	offset int64
	length uint32
	key    uint32 // where its part of keys begins
}

const placeHeader = 16

func newBlockTable(blocks []block) (t blockTable) {
	size := 0
	for i := range blocks {
		size += placeHeader + len(blocks[i].key)
	}
	t.places, t.keys = make([]place, 0, len(blocks)), make([]byte, 0, size)
	for i := range blocks {
		b := &blocks[i]
		t.places = append(t.places, place{offset: b.offset, length: uint32(b.length), key: uint32(len(t.keys))})
		t.keys = binary.LittleEndian.AppendUint64(t.keys, uint64(b.instance))
		t.keys = append(binary.LittleEndian.AppendUint64(t.keys, uint64(b.rev)), b.key...)
	}
	return t
}

func (t *blockTable) count() int { return len(t.places) }

// at returns block n; its key is a part of the table.
func (t *blockTable) at(n int) block {
	p, end := t.places[n], uint32(len(t.keys))
	if n+1 < len(t.places) {
		end = t.places[n+1].key
	}
	k := t.keys[p.key:end:end]
	return block{
		offset: p.offset, length: int(p.length),
		instance: keyspace.InstanceID(binary.LittleEndian.Uint64(k)),
		rev:      keyspace.Revision(binary.LittleEndian.Uint64(k[8:])),
		key:      k[placeHeader:],
	}
}

// bytes is what the table takes in memory.
func (t *blockTable) bytes() int64 { return int64(placeHeader*len(t.places) + len(t.keys)) }
