package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/fault"
)

// The first sector of a segment: magic (8 bytes), format version (4), zero
// (4), number (8), salt (8), checksum of all that (4).
const (
	segmentMagic       = "KVRAFTLG"
	segmentVersion     = 1
	segmentHeaderBytes = 36
	segmentSuffix      = ".log"
	preparingSuffix    = ".new"
)

// segment is one file of the log.
type segment struct {
	number uint64
	salt   uint64
	file   env.File
	size   int64
	// end is where the next frame goes.
	end int64
	// syncing counts the syncs that run beside the log; the file stays meanwhile.
	syncing atomic.Int32
}

func segmentName(dir string, number uint64) string {
	return path.Join(dir, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// segmentNumber parses a file's base name.
func segmentNumber(base string) (uint64, bool) {
	digits, ok := strings.CutSuffix(base, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil && n > 0
}

func encodeSegmentHeader(number, salt uint64) []byte {
	b := make([]byte, 0, sectorBytes)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint64(b, salt)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, zeroSector[len(b):]...)
}

var errSegmentHeader = errors.New("segment header is damaged")

func decodeSegmentHeader(b []byte, number uint64) (salt uint64, err error) {
	const summed = segmentHeaderBytes - 4
	switch {
	case len(b) < segmentHeaderBytes, string(b[:8]) != segmentMagic,
		binary.LittleEndian.Uint32(b[summed:]) != crc32.Checksum(b[:summed], castagnoli):
		return 0, errSegmentHeader
	case binary.LittleEndian.Uint64(b[16:]) != number:
		return 0, errSegmentHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return 0, fault.New(fault.Unsupported, "raft log segment has an unknown format version", "version", v, "known", segmentVersion)
	}
	return binary.LittleEndian.Uint64(b[24:]), nil
}

// prepareSegment makes a segment that a commit can write to without any other
// change of the file system. It gets its name last, so that what has the name
// is whole.
func prepareSegment(fs env.FS, dir string, number, salt uint64, size int64) (*segment, error) {
	name := segmentName(dir, number)
	if err := fillSegment(fs, name+preparingSuffix, number, salt, size); err != nil {
		_ = fs.Remove(name + preparingSuffix) // best effort: the next Open removes what is left over
		return nil, err
	}
	if err := fs.Rename(name+preparingSuffix, name); err != nil {
		return nil, err
	}
	if err := fs.SyncDir(dir); err != nil {
		return nil, err
	}
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	env.Uncached(f)
	return &segment{number: number, salt: salt, file: f, size: size, end: sectorBytes}, nil
}

// fillSegment makes the file of a segment and closes it: Windows does not rename
// files that are open.
func fillSegment(fs env.FS, name string, number, salt uint64, size int64) error {
	f, err := fs.Create(name)
	if err != nil {
		return err
	}
	env.Uncached(f)
	err = f.Preallocate(size)
	if err == nil {
		_, err = f.WriteAt(encodeSegmentHeader(number, salt), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// removeSegment deletes a segment that nothing needs. The directory is synced
// after each, so that what is left is always the newest part of the log.
func removeSegment(fs env.FS, dir string, s *segment) error {
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := fs.Remove(segmentName(dir, s.number)); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}
