package badger

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"sort"

	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
)

// tableIndex is where the blocks of a table are. Badger keeps it to itself, so
// it is read from the end of the file:
//
//	blocks index [index length 4] checksum [checksum length 4]
//
// in big endian. It is read and not mapped: Badger cuts a table to nothing before
// it removes it.
type tableIndex struct{ *fb.TableIndex }

// lengthBytes is the length of a length.
const lengthBytes = 4

func readTableIndex(dir string, id uint64) (*tableIndex, error) {
	f, err := os.Open(table.NewFilename(id, dir))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	rest := info.Size()
	sum, rest, err := readBefore(f, rest)
	if err != nil {
		return nil, err
	}
	index, _, err := readBefore(f, rest)
	if err != nil {
		return nil, err
	}
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return nil, err
	}
	if err := y.VerifyChecksum(index, &want); err != nil {
		return nil, err
	}
	return &tableIndex{fb.GetRootAsTableIndex(index, 0)}, nil
}

// readBefore reads what ends with its length at end, and returns where it begins.
func readBefore(f io.ReaderAt, end int64) (b []byte, start int64, err error) {
	var length [lengthBytes]byte
	if _, err := f.ReadAt(length[:], end-lengthBytes); err != nil {
		return nil, 0, err
	}
	size := int64(binary.BigEndian.Uint32(length[:]))
	start = end - lengthBytes - size
	if start < 0 || size == 0 {
		return nil, 0, fault.New(fault.Corruption, "badger table is damaged", "limit_bytes", end, "actual_bytes", size)
	}
	b = make([]byte, size)
	_, err = f.ReadAt(b, start)
	return b, start, err
}

func (x *tableIndex) count() int { return x.OffsetsLength() }

func (x *tableIndex) at(n int) (b fb.BlockOffset) {
	x.Offsets(&b, n)
	return b
}

// key is the first one of block n, with its version.
func (x *tableIndex) key(n int) []byte {
	b := x.at(n)
	return b.KeyBytes()
}

// search returns the first block that begins at or above key.
func (x *tableIndex) search(key []byte) int {
	return sort.Search(x.count(), func(n int) bool { return bytes.Compare(userKey(x.key(n)), key) >= 0 })
}

// bytes is what blocks take on disk, upper exclusive.
func (x *tableIndex) bytes(lower, upper int) int64 {
	if lower >= upper {
		return 0
	}
	first, last := x.at(lower), x.at(upper-1)
	return int64(last.Offset()) + int64(last.Len()) - int64(first.Offset())
}
