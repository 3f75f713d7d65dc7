package membership

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// ClusterID is the id of the cluster that members (name -> life) found: a UUID
// made from their names and lives, so that all compute the same one.
func ClusterID(cluster string, members map[string]string) string {
	h := sha256.New()
	writeStrings(h, "kvstore cluster", cluster)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		writeStrings(h, name, members[name])
	}
	return uuid(h.Sum(nil), 8)
}

// NewLife draws the id of a data directory, a random UUID. It is also the id
// of the node that runs on it.
func NewLife() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return uuid(b[:], 4)
}

// ConfigHash condenses the settings that all first members must share: the
// cluster's name, the names of the first members, and facts such as the number
// of groups and the replication factor.
func ConfigHash(cluster string, first []string, facts ...int) string {
	h := sha256.New()
	writeStrings(h, "kvstore config", cluster)
	first = slices.Clone(first)
	slices.Sort(first)
	writeStrings(h, first...)
	for _, f := range facts {
		writeStrings(h, fmt.Sprint(f))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// writeStrings writes each string with its length, so that no two lists look
// the same.
func writeStrings(h hash.Hash, list ...string) {
	for _, s := range list {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
}

// uuid formats the first 16 bytes of b as a UUID of the given version.
func uuid(b []byte, version byte) string {
	var u [16]byte
	copy(u[:], b)
	u[6] = u[6]&0x0f | version<<4
	u[8] = u[8]&0x3f | 0x80
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
