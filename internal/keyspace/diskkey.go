package keyspace

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"kvstore/internal/fault"
)

// Kind is the first byte of a disk key after its instance prefix. Kinds are
// persisted: a number is never reused.
type Kind byte

const (
	// KindData holds the records of user keys.
	KindData Kind = 1
	// KindChunk holds the chunks of large values.
	KindChunk Kind = 2
	// KindTTL holds the index of deadlines: a key for every record that expires.
	KindTTL Kind = 3
)

// A disk key is
//
//	[instance 8][kind 1][namespace 4][escaped user key][terminator 2]   KindData
//	[instance 8][kind 1][upload 8][chunk number 4]                      KindChunk
//	[instance 8][kind 1][deadline 8][namespace 4][escaped user key][terminator 2]   KindTTL
//
// with all numbers big endian. In the escaped key every 0x00 is followed by
// 0xff, and the terminator is 0x00 0x01. So disk keys sort as user keys do, no
// disk key is a prefix of another one, and the escaped form of a prefix is a
// prefix of exactly the keys that begin with it.
const (
	// InstanceBytes is the length of an instance prefix.
	InstanceBytes = 8
	// MaxDiskKeyBytes is the longest disk key with its instance prefix.
	MaxDiskKeyBytes = InstanceBytes + deadlineBytes + dataHeaderBytes + 2*MaxKeyBytes + terminatorBytes

	dataHeaderBytes = 1 + 4
	deadlineBytes   = 8
	chunkKeyBytes   = 1 + 8 + 4
	terminatorBytes = 2

	escape     = 0x00
	escapedNul = 0xff
	terminator = 0x01
)

// AppendInstance appends the prefix of every disk key of i.
func AppendInstance(dst []byte, i InstanceID) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(i))
}

// DecodeInstance splits a disk key into its instance and the rest.
func DecodeInstance(b []byte) (i InstanceID, rest []byte, err error) {
	if len(b) < InstanceBytes {
		return 0, nil, damagedKey(b, "shorter than an instance prefix")
	}
	return InstanceID(binary.BigEndian.Uint64(b)), b[InstanceBytes:], nil
}

// AppendDataKey appends the disk key of a user key, without instance.
func AppendDataKey(dst []byte, ns NamespaceID, key []byte) []byte {
	dst = AppendDataPrefix(dst, ns, key)
	return append(dst, escape, terminator)
}

// AppendDataPrefix appends the prefix of the disk keys of all user keys of ns
// that begin with prefix, without instance.
func AppendDataPrefix(dst []byte, ns NamespaceID, prefix []byte) []byte {
	dst = append(dst, byte(KindData))
	dst = binary.BigEndian.AppendUint32(dst, uint32(ns))
	for {
		nul := bytes.IndexByte(prefix, 0)
		if nul < 0 {
			return append(dst, prefix...)
		}
		dst = append(dst, prefix[:nul]...)
		dst = append(dst, escape, escapedNul)
		prefix = prefix[nul+1:]
	}
}

// DecodeDataKey reverses AppendDataKey; b is without instance. The key is a
// part of b when it holds no NUL, else a copy. It returns fault.Corruption
// when b is not exactly one data key.
func DecodeDataKey(b []byte) (ns NamespaceID, key []byte, err error) {
	if len(b) < dataHeaderBytes+terminatorBytes || Kind(b[0]) != KindData {
		return 0, nil, damagedKey(b, "not a data key")
	}
	ns = NamespaceID(binary.BigEndian.Uint32(b[1:]))
	escaped := b[dataHeaderBytes : len(b)-terminatorBytes]
	if b[len(b)-2] != escape || b[len(b)-1] != terminator {
		return 0, nil, damagedKey(b, "no terminator")
	}
	nul := bytes.IndexByte(escaped, escape)
	if nul < 0 {
		return ns, escaped, nil
	}
	key, ok := unescape(escaped, nul)
	if !ok {
		return 0, nil, damagedKey(b, "bad escape")
	}
	return ns, key, nil
}

// unescape returns a copy of escaped, whose first NUL is at position nul.
func unescape(escaped []byte, nul int) ([]byte, bool) {
	key := make([]byte, 0, len(escaped))
	for nul >= 0 {
		if nul+1 >= len(escaped) || escaped[nul+1] != escapedNul {
			return nil, false
		}
		key = append(key, escaped[:nul+1]...)
		escaped = escaped[nul+2:]
		nul = bytes.IndexByte(escaped, escape)
	}
	return append(key, escaped...), true
}

// AppendChunkKey appends the disk key of chunk n of an upload, without
// instance.
func AppendChunkKey(dst []byte, upload Revision, n uint32) []byte {
	dst = append(dst, byte(KindChunk))
	dst = binary.BigEndian.AppendUint64(dst, uint64(upload))
	return binary.BigEndian.AppendUint32(dst, n)
}

// DecodeChunkKey reverses AppendChunkKey; b is without instance.
func DecodeChunkKey(b []byte) (upload Revision, n uint32, err error) {
	if len(b) != chunkKeyBytes || Kind(b[0]) != KindChunk {
		return 0, 0, damagedKey(b, "not a chunk key")
	}
	return Revision(binary.BigEndian.Uint64(b[1:])), binary.BigEndian.Uint32(b[9:]), nil
}

// AppendTTLKey appends the disk key of the index of deadlines for a record with
// the given data key, without instance. deadline is Unix milliseconds, not
// negative.
func AppendTTLKey(dst []byte, deadline int64, dataKey []byte) []byte {
	return append(AppendTTLPrefix(dst, deadline), dataKey[1:]...)
}

// AppendTTLPrefix appends the lower bound of the disk keys of the index with the
// given deadline or a later one, without instance.
func AppendTTLPrefix(dst []byte, deadline int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(KindTTL)), uint64(deadline))
}

// DecodeTTLKey reverses AppendTTLKey; b is without instance. The data key is
// appended to dst.
func DecodeTTLKey(dst, b []byte) (deadline int64, dataKey []byte, err error) {
	if len(b) < deadlineBytes+dataHeaderBytes+terminatorBytes || Kind(b[0]) != KindTTL {
		return 0, nil, damagedKey(b, "not a key of the index of deadlines")
	}
	deadline = int64(binary.BigEndian.Uint64(b[1:]))
	dataKey = append(append(dst, byte(KindData)), b[1+deadlineBytes:]...)
	if _, _, err := DecodeDataKey(dataKey[len(dst):]); err != nil || deadline < 0 {
		return 0, nil, damagedKey(b, "not a deadline and a data key")
	}
	return deadline, dataKey, nil
}

// ClassBytes returns how much of a disk key without instance names its kind and
// namespace: what all keys that a walk has in common begin with.
func ClassBytes(b []byte) int {
	if KindOf(b) == KindData {
		return min(len(b), dataHeaderBytes)
	}
	return min(len(b), 1)
}

// KindOf returns the kind of a disk key without instance; 0 for an empty one.
func KindOf(b []byte) Kind {
	if len(b) == 0 {
		return 0
	}
	return Kind(b[0])
}

// PrefixEnd returns the smallest key above all keys that begin with b: nil,
// which means to the end, when there is none.
func PrefixEnd(b []byte) []byte {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			end := bytes.Clone(b[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

func damagedKey(b []byte, reason string) error {
	const shown = 32
	return fault.New(fault.Corruption, "disk key is damaged",
		"reason", reason, "length", len(b), "key", hex(b[:min(len(b), shown)]))
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

// CommonPrefix is how many bytes two keys, and all between them, begin with alike.
func CommonPrefix(a, b []byte) int {
	n, i := min(len(a), len(b)), 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < n; i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Head is the eight bytes of a key from skip on, filled up with zeros: of keys that
// begin alike up to there, the one with the lower head is the lower one.
func Head(key []byte, skip int) uint64 {
	if len(key) >= skip+8 {
		return binary.BigEndian.Uint64(key[skip:])
	}
	var b [8]byte
	if skip < len(key) {
		copy(b[:], key[skip:])
	}
	return binary.BigEndian.Uint64(b[:])
}
