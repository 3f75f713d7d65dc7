package format

import (
	"bytes"
	"encoding/binary"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// ExportKey is a key and versions of it, as one group hands them to another.
type ExportKey struct {
	// Key is a disk key without its instance.
	Key []byte
	// Versions ascend by revision; there is at least one.
	Versions []ExportVersion
}

// ExportVersion is one version of an ExportKey.
type ExportVersion struct {
	Revision keyspace.Revision
	// Value is an encoded record, empty with Delete.
	Value []byte
	// Delete: the engine deleted the key at Revision. Deletions by users are
	// records.
	Delete bool
	// Chunks are those that a chunked record refers to, in order.
	Chunks [][]byte
}

// ExportPage is a part of what a group has of some slots: a range of keys, or
// what a part of its log changed.
type ExportPage struct {
	// Keys ascend.
	Keys []ExportKey
	// Last is the disk key that a range reaches. Whatever the group has of the
	// slots between the key behind which the page begins and Last is in it. Done:
	// it reaches the end of all keys instead.
	Last []byte
	Done bool
	// Floor is the revision from which on what the page has of its keys is whole.
	Floor keyspace.Revision
	// To is the log index that a page of changes reaches, 0 for a range. Skip is
	// how many writes of the entry behind To are in the page too: that one has
	// more than fits into a page.
	To   keyspace.Index
	Skip uint32
}

// A page is
//
//	[format 1][flags 1][floor 8][to 8][skip uvarint][versions uvarint]
//	[last length uvarint][last][CRC32C of all before 4]
//
// and as many versions, keys ascending, revisions ascending within a key:
//
//	[format 1][flags 1][revision 8][key length uvarint][value length uvarint]
//	[chunks uvarint][length uvarint of each][key][value][chunks]
//	[CRC32C of the version before 4]
//
// A key of length 0 is that of the version before.
const (
	exportDone    = 1
	exportDeleted = 1

	// exportVersionBytes is the least that a version takes.
	exportVersionBytes = 2 + 8 + 3 + 4
)

// AppendExportPage appends the encoding of p.
func AppendExportPage(dst []byte, p *ExportPage) []byte {
	start := len(dst)
	var flags byte
	if p.Done {
		flags |= exportDone
	}
	versions := 0
	for i := range p.Keys {
		versions += len(p.Keys[i].Versions)
	}
	dst = append(dst, Version, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Floor))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.To))
	dst = binary.AppendUvarint(dst, uint64(p.Skip))
	dst = binary.AppendUvarint(dst, uint64(versions))
	dst = appendBytes(dst, p.Last)
	dst = binary.BigEndian.AppendUint32(dst, CRC32C(dst[start:]))
	for i := range p.Keys {
		key := p.Keys[i].Key
		for j := range p.Keys[i].Versions {
			dst = appendExportVersion(dst, key, &p.Keys[i].Versions[j])
			key = nil
		}
	}
	return dst
}

func appendExportVersion(dst, key []byte, v *ExportVersion) []byte {
	start := len(dst)
	var flags byte
	if v.Delete {
		flags |= exportDeleted
	}
	dst = append(dst, Version, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.Revision))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = binary.AppendUvarint(dst, uint64(len(v.Value)))
	dst = binary.AppendUvarint(dst, uint64(len(v.Chunks)))
	for _, c := range v.Chunks {
		dst = binary.AppendUvarint(dst, uint64(len(c)))
	}
	dst = append(append(dst, key...), v.Value...)
	for _, c := range v.Chunks {
		dst = append(dst, c...)
	}
	return binary.BigEndian.AppendUint32(dst, CRC32C(dst[start:]))
}

// DecodeExportPage decodes b, of which keys, values and chunks are parts. Errors
// are fault.Corruption, or fault.Unsupported for a newer format.
func DecodeExportPage(b []byte) (ExportPage, error) {
	p := parser{rest: b}
	var page ExportPage
	flags := p.exportHead(exportDone)
	page.Done = flags&exportDone != 0
	page.Floor, page.To = keyspace.Revision(p.uint64()), keyspace.Index(p.uint64())
	skip, versions := p.uvarint(), p.uvarint()
	if skip > 1<<32-1 {
		p.fail("skip out of range")
	}
	page.Skip = uint32(skip)
	page.Last = p.bytes()
	p.checkSum(b)
	if versions > uint64(len(p.rest))/exportVersionBytes {
		p.fail("truncated")
	}
	for ; versions > 0 && p.failed == ""; versions-- {
		p.exportVersion(&page)
	}
	if p.failed == "" && len(p.rest) > 0 {
		p.fail("trailing bytes")
	}
	if p.failed != "" {
		return ExportPage{}, damagedExport(b, p.failed)
	}
	return page, nil
}

// exportHead takes format version and flags.
func (p *parser) exportHead(known byte) (flags byte) {
	version := p.byte()
	flags = p.byte()
	if version < MinVersion || version > Version || flags&^known != 0 {
		p.fail("unknown format version or flags")
	}
	return flags
}

// checkSum takes the checksum of what was taken off b.
func (p *parser) checkSum(b []byte) {
	body := b[:len(b)-len(p.rest)]
	if sum := p.uint32(); p.failed == "" && sum != CRC32C(body) {
		p.fail("checksum mismatch")
	}
}

// exportVersion takes a version and adds it to the page.
func (p *parser) exportVersion(page *ExportPage) {
	start := p.rest
	flags := p.exportHead(exportDeleted)
	v := ExportVersion{Revision: keyspace.Revision(p.uint64()), Delete: flags&exportDeleted != 0}
	keyLen, valueLen := p.uvarint(), p.uvarint()
	lengths := p.lengths()
	if keyLen > uint64(len(p.rest)) || valueLen > uint64(len(p.rest))-keyLen {
		p.fail("truncated")
		return
	}
	key := p.take(int(keyLen))
	v.Value = p.take(int(valueLen))
	for _, n := range lengths {
		v.Chunks = append(v.Chunks, p.take(n))
	}
	p.checkSum(start)
	if v.Delete && len(v.Value)+len(v.Chunks) > 0 {
		p.fail("a deletion with a value")
	}
	if p.failed == "" {
		p.failed = page.add(key, v)
	}
}

// lengths takes a number of lengths that fit into the rest.
func (p *parser) lengths() []int {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.fail("truncated")
		return nil
	}
	var all []int
	for range n {
		length := p.uvarint()
		if length > uint64(len(p.rest)) {
			p.fail("truncated")
			return nil
		}
		all = append(all, int(length))
	}
	return all
}

// add appends a version of a key, of the last one when key is empty; it returns
// what is wrong with it.
func (page *ExportPage) add(key []byte, v ExportVersion) string {
	if len(key) > 0 {
		if n := len(page.Keys); n > 0 && bytes.Compare(page.Keys[n-1].Key, key) >= 0 {
			return "keys out of order"
		}
		page.Keys = append(page.Keys, ExportKey{Key: key, Versions: []ExportVersion{v}})
		return ""
	}
	if len(page.Keys) == 0 {
		return "a version without a key"
	}
	last := &page.Keys[len(page.Keys)-1]
	if last.Versions[len(last.Versions)-1].Revision >= v.Revision {
		return "revisions out of order"
	}
	last.Versions = append(last.Versions, v)
	return ""
}

func damagedExport(b []byte, reason string) error {
	if len(b) > 0 && b[0] > Version {
		return fault.New(fault.Unsupported, "export page has a newer format", "limit", Version, "actual", b[0])
	}
	return fault.New(fault.Corruption, "export page is damaged", "reason", reason, "length", len(b))
}
