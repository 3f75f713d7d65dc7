package format

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// ListToken says where a list continues. All pages of a list are read at its
// revision, so together they are one snapshot.
type ListToken struct {
	Namespace keyspace.NamespaceID
	Revision  keyspace.Revision
	// Filter is a hash of everything that decides which keys the list has; a
	// token is refused for a list that asks for other keys.
	Filter  uint64
	Reverse bool
	// Level is that at which the revision was chosen, of api.Consistency.
	Level uint8
	// LastKey is the last key returned or looked at: the next page starts
	// behind it.
	LastKey string
}

const (
	tokenReverse = 1 << iota
	// two bits are the level
	tokenLevelShift = iota
	tokenLevel      = 3 << tokenLevelShift
)

const (
	// version, flags, namespace, revision, filter.
	tokenHeaderBytes = 1 + 1 + 4 + 8 + 8
	tokenCRCBytes    = 4
	maxTokenBytes    = tokenHeaderBytes + keyspace.MaxKeyBytes + tokenCRCBytes
)

var tokenCRC = crc32.MakeTable(crc32.Castagnoli)

// AppendListToken appends the encoding of t: format version, flags, fixed
// fields, key, CRC32C of all before it.
func AppendListToken(dst []byte, t ListToken) []byte {
	start := len(dst)
	var flags byte
	if t.Reverse {
		flags |= tokenReverse
	}
	flags |= t.Level << tokenLevelShift & tokenLevel
	dst = append(dst, Version, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t.Namespace))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.Revision))
	dst = binary.BigEndian.AppendUint64(dst, t.Filter)
	dst = append(dst, t.LastKey...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], tokenCRC))
}

// DecodeListToken is the inverse of AppendListToken. Anything else than its
// output is fault.InvalidToken.
func DecodeListToken(b []byte) (ListToken, error) {
	if len(b) < tokenHeaderBytes+tokenCRCBytes || len(b) > maxTokenBytes {
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token has an impossible length",
			"actual_bytes", len(b), "limit_bytes", maxTokenBytes)
	}
	body, sum := b[:len(b)-tokenCRCBytes], binary.BigEndian.Uint32(b[len(b)-tokenCRCBytes:])
	if actual := crc32.Checksum(body, tokenCRC); actual != sum {
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token is damaged",
			"expected_crc32c", fmt.Sprintf("%08x", sum), "actual_crc32c", fmt.Sprintf("%08x", actual))
	}
	if v := body[0]; v < MinVersion || v > Version {
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token has an unknown format version",
			"actual", v, "limit", Version)
	}
	if flags := body[1]; flags&^(tokenReverse|tokenLevel) != 0 {
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token has unknown flags", "actual", flags)
	}
	return ListToken{
		Reverse:   body[1]&tokenReverse != 0,
		Level:     body[1] & tokenLevel >> tokenLevelShift,
		Namespace: keyspace.NamespaceID(binary.BigEndian.Uint32(body[2:])),
		Revision:  keyspace.Revision(binary.BigEndian.Uint64(body[6:])),
		Filter:    binary.BigEndian.Uint64(body[14:]),
		LastKey:   string(body[tokenHeaderBytes:]),
	}, nil
}

// EncodeListToken returns t in the form clients see: URL-safe text.
func EncodeListToken(t ListToken) string {
	return base64.RawURLEncoding.EncodeToString(AppendListToken(nil, t))
}

// ParseListToken is the inverse of EncodeListToken; errors as DecodeListToken.
func ParseListToken(s string) (ListToken, error) {
	if limit := base64.RawURLEncoding.EncodedLen(maxTokenBytes); len(s) > limit {
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token is too long",
			"actual_bytes", len(s), "limit_bytes", limit)
	}
	if strings.ContainsAny(s, "\r\n") { // the decoder skips them
		return ListToken{}, fault.New(fault.InvalidToken, "continuation token has a line break")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return ListToken{}, fault.Wrap(fault.InvalidToken, err, "continuation token is not base64")
	}
	return DecodeListToken(b)
}
