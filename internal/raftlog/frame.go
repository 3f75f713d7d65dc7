package raftlog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// sectorBytes is the unit a disk writes whole or not at all. Frames start at
// sectors, so that no write ever touches a sector with acknowledged bytes.
const sectorBytes = 512

// A frame is one Commit: checksum of the header (4 bytes, seeded with the
// segment's salt), magic (4), length with header and without padding (4),
// frame format version (2), flags (2), sequence number in the whole log (8),
// highest frame known to be durable when this one was written (8), records,
// padding of 0xff to the next sector. It is valid whole or not at all.
const (
	frameHeaderBytes = 32
	frameMagic       = 0x4652564b // "KVRF"
	frameVersion     = 1
	// maxFrameBytes bounds one Commit.
	maxFrameBytes = 1 << 30
)

type frameHeader struct {
	length int64 // header and records
	seq    uint64
	synced uint64
}

func (h frameHeader) padded() int64 { return padded(h.length) }

func padded(n int64) int64 { return (n + sectorBytes - 1) &^ (sectorBytes - 1) }

func frameChecksum(salt uint64, header []byte) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, header[4:frameHeaderBytes])
}

// beginFrame appends an empty header.
func beginFrame(b []byte) []byte {
	var h [frameHeaderBytes]byte
	return append(b, h[:]...)
}

// endFrame completes the frame that starts at start and pads it.
func endFrame(b []byte, start int, salt, seq, synced uint64) []byte {
	length := len(b) - start
	h := b[start : start+frameHeaderBytes]
	binary.LittleEndian.PutUint32(h[4:], frameMagic)
	binary.LittleEndian.PutUint32(h[8:], uint32(length))
	binary.LittleEndian.PutUint16(h[12:], frameVersion)
	binary.LittleEndian.PutUint64(h[16:], seq)
	binary.LittleEndian.PutUint64(h[24:], synced)
	binary.LittleEndian.PutUint32(h[0:], frameChecksum(salt, h))
	for n := padded(int64(length)) - int64(length); n > 0; n-- {
		b = append(b, 0xff)
	}
	return b
}

// parseFrameHeader reports whether b starts with a header of this segment.
func parseFrameHeader(b []byte, salt uint64) (frameHeader, bool) {
	if len(b) < frameHeaderBytes || binary.LittleEndian.Uint32(b[4:]) != frameMagic {
		return frameHeader{}, false
	}
	if binary.LittleEndian.Uint32(b) != frameChecksum(salt, b) {
		return frameHeader{}, false
	}
	h := frameHeader{
		length: int64(binary.LittleEndian.Uint32(b[8:])),
		seq:    binary.LittleEndian.Uint64(b[16:]),
		synced: binary.LittleEndian.Uint64(b[24:]),
	}
	return h, h.length >= frameHeaderBytes && h.length <= maxFrameBytes
}

// frameFormat returns the format version of a frame whose header is valid.
func frameFormat(b []byte) uint16 { return binary.LittleEndian.Uint16(b[12:]) }

// torn reports whether b, whole sectors that should hold a frame, shows traces
// of a write that was cut short. What is missing after a power cut is what the
// segment held before: zeroes. A frame without any sector that begins or ends
// with a zero byte arrived whole, so what is wrong with it is damage.
func torn(b []byte) bool {
	for ; len(b) >= sectorBytes; b = b[sectorBytes:] {
		if b[0] == 0 || b[sectorBytes-1] == 0 {
			return true
		}
	}
	return false
}

var zeroSector [sectorBytes]byte

func allZero(b []byte) bool {
	for len(b) >= sectorBytes {
		if !bytes.Equal(b[:sectorBytes], zeroSector[:]) {
			return false
		}
		b = b[sectorBytes:]
	}
	return bytes.Equal(b, zeroSector[:len(b)])
}
