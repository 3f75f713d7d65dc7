package badger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// markerName is the file that names the value log being rewritten.
const markerName = "REWRITING"

func valueLogPath(dir string, fid uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%06d%s", fid, valueLogSuffix))
}

// writeMarker makes a marker durable.
func writeMarker(dir string, fid uint32) error {
	path := filepath.Join(dir, markerName)
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", fid), 0o600); err != nil {
		return fmt.Errorf("write rewrite marker: %w", err)
	}
	return errors.Join(syncFile(path), syncDir(dir))
}

func removeMarker(dir string) error {
	if err := os.Remove(filepath.Join(dir, markerName)); err != nil {
		return fmt.Errorf("remove rewrite marker: %w", err)
	}
	return syncDir(dir)
}

// readMarker returns the value log that was being rewritten, 0 for a torn
// marker: that one was written before the rewrite began.
func readMarker(dir string) (fid uint32, found bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read rewrite marker: %w", err)
	}
	line, whole := strings.CutSuffix(string(text), "\n")
	number, err := strconv.ParseUint(line, 10, 32)
	if err != nil || !whole {
		return 0, true, nil
	}
	return uint32(number), true, nil
}

// repair finishes what a crash during a rewrite left: every value of the old
// log that the store has under its key and revision but cannot read rightly is
// written again.
func (e *Engine) repair() error {
	fid, found, err := readMarker(e.dir)
	if err != nil || !found {
		return err
	}
	if err := e.repairFrom(fid); err != nil {
		return fmt.Errorf("repair from value log %d: %w", fid, err)
	}
	if err := e.Sync(); err != nil {
		return err
	}
	return removeMarker(e.dir)
}

func (e *Engine) repairFrom(fid uint32) error {
	f, err := os.Open(valueLogPath(e.dir, fid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	r := e.Reader().(*reader)
	defer r.Close()
	var repaired int
	err = readValueLog(f, func(key []byte, rev keyspace.Revision, value []byte) error {
		if !r.damaged(key, rev, value) {
			return nil
		}
		repaired++
		return e.Write(context.Background(), []engine.Write{{Key: key, Revision: rev, Value: value}})
	})
	e.log.Info("value log checked after a crash during its rewrite", "value_log", fid, "repaired", repaired)
	return err
}

// damaged reports whether the store has key at rev, but not with this value.
func (r *reader) damaged(key []byte, rev keyspace.Revision, value []byte) bool {
	got, at, ok, err := r.Get(key, rev)
	if err != nil {
		return true
	}
	return ok && at == rev && !bytes.Equal(got, value)
}

// Badger's value log: a header of a key id and an IV, then entries
//
//	[meta 1][user meta 1][key length][value length][expires][key][value][CRC32C 4]
//
// with lengths and expires as uvarint and the CRC over all before it. Keys end
// with the complement of their version. Zeroes end the log.
const (
	valueLogHeaderBytes = 20
	versionBytes        = 8
	maxEntryKeyBytes    = 1 << 16
	maxEntryValueBytes  = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readValueLog calls each for the entries up to the first that is damaged.
func readValueLog(f io.Reader, each func(key []byte, rev keyspace.Revision, value []byte) error) error {
	r := bufio.NewReaderSize(f, 1<<20)
	if _, err := r.Discard(valueLogHeaderBytes); err != nil {
		return nil
	}
	for {
		key, value, ok := readEntry(r)
		if !ok {
			return nil
		}
		split := len(key) - versionBytes
		rev := ^binary.BigEndian.Uint64(key[split:])
		if err := each(key[:split:split], keyspace.Revision(rev), value); err != nil {
			return err
		}
	}
}

// summed is a reader that keeps the checksum of what was read.
type summed struct {
	r   *bufio.Reader
	sum uint32
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum = crc32.Update(s.sum, castagnoli, []byte{b})
	}
	return b, err
}

func (s *summed) full(n uint64) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil
	}
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return b
}

func readEntry(r *bufio.Reader) (key, value []byte, ok bool) {
	s := &summed{r: r}
	s.full(2) // meta, user meta
	keyLen, err1 := binary.ReadUvarint(s)
	valueLen, err2 := binary.ReadUvarint(s)
	_, err3 := binary.ReadUvarint(s)
	if errors.Join(err1, err2, err3) != nil || keyLen <= versionBytes || keyLen > maxEntryKeyBytes || valueLen > maxEntryValueBytes {
		return nil, nil, false
	}
	key, value = s.full(keyLen), s.full(valueLen)
	var sum [crc32.Size]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return nil, nil, false
	}
	return key, value, binary.BigEndian.Uint32(sum[:]) == s.sum
}
