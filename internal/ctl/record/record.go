// Package record is the JSON form of a stored record: what kvctl prints with
// -o json, and one line of the files that batch, import and export use.
package record

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"

	"kvstore/client"
)

// ErrBad marks a line that cannot be used.
var ErrBad = errors.New("bad record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC32C the store keeps beside a value.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// JSON is one record. A value is text where it is readable as such, else
// base64; an absent value (keys only) has neither. Revisions are strings:
// they exceed the 53 bits that JSON readers keep.
type JSON struct {
	Key         string            `json:"key"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 *string           `json:"value_base64,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Encoding    string            `json:"encoding,omitempty"`
	Checksum    *uint32           `json:"checksum,omitempty"`
	Size        *uint64           `json:"size,omitempty"`
	Version     uint64            `json:"version,omitempty"`
	Revision    uint64            `json:"revision,omitempty,string"`
	CreatedAt   *time.Time        `json:"created_at,omitempty"`
	UpdatedAt   *time.Time        `json:"updated_at,omitempty"`
	ExpiresAt   *time.Time        `json:"expires_at,omitempty"`
	TTLSeconds  int64             `json:"ttl_seconds,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Lease       string            `json:"lease,omitempty"`
	// Created is the revision of the write that created the key.
	Created uint64 `json:"created_revision,omitempty,string"`
	// ReadRevision is that of the snapshot of a list.
	ReadRevision uint64 `json:"read_revision,omitempty,string"`

	// Conditions, read by batch put and batch delete.
	IfVersion     *uint64 `json:"if_version,omitempty"`
	IfRevision    *uint64 `json:"if_revision,omitempty,string"`
	IfExists      bool    `json:"if_exists,omitempty"`
	IfAbsent      bool    `json:"if_absent,omitempty"`
	IfValue       *string `json:"if_value,omitempty"`
	IfValueBase64 *string `json:"if_value_base64,omitempty"`
}

// From returns the JSON form of r, with its value unless it was left out.
func From(r client.Record, withValue bool) JSON {
	j := JSON{
		Key: r.Key, ContentType: r.ContentType, Encoding: r.Encoding,
		Checksum: &r.Checksum, Size: &r.Size, Version: r.Version, Revision: r.Revision, Lease: r.Lease, Created: r.CreatedRevision,
		CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt), ExpiresAt: moment(r.ExpiresAt),
		Tags: r.Tags, Metadata: r.Metadata,
	}
	if withValue {
		j.Value, j.ValueBase64 = encode(r.Value)
	}
	return j
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// encode returns the text or the base64 form of b.
func encode(b []byte) (text, b64 *string) {
	if readable(b) {
		s := string(b)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// readable says whether b is text that JSON keeps exactly and shortly.
func readable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// decode decodes a pair of text and base64; ok says whether one was there.
func decode(name string, text, b64 *string) (b []byte, ok bool, err error) {
	switch {
	case text != nil && b64 != nil:
		return nil, false, fmt.Errorf("%w: both %s and %s_base64", ErrBad, name, name)
	case text != nil:
		return []byte(*text), true, nil
	case b64 != nil:
		b, err := base64.StdEncoding.DecodeString(*b64)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %s_base64: %w", ErrBad, name, err)
		}
		return b, true, nil
	}
	return nil, false, nil
}

// Put returns the write this record describes. Its checksum, when there is
// one, must be that of its value.
func (j JSON) Put() (client.PutItem, error) {
	value, ok, err := decode("value", j.Value, j.ValueBase64)
	if err != nil {
		return client.PutItem{}, err
	}
	if !ok {
		return client.PutItem{}, fmt.Errorf("%w: key %q has neither value nor value_base64", ErrBad, j.Key)
	}
	sum := Checksum(value)
	if j.Checksum != nil && *j.Checksum != sum {
		return client.PutItem{}, fmt.Errorf("%w: key %q: checksum %d, its value has %d", ErrBad, j.Key, *j.Checksum, sum)
	}
	if j.TTLSeconds != 0 && j.ExpiresAt != nil {
		return client.PutItem{}, fmt.Errorf("%w: key %q: both ttl_seconds and expires_at", ErrBad, j.Key)
	}
	cond, err := j.Condition()
	if err != nil {
		return client.PutItem{}, err
	}
	item := client.PutItem{
		Key: j.Key, Value: value, ContentType: j.ContentType, Encoding: j.Encoding, Checksum: &sum,
		TTL: time.Duration(j.TTLSeconds) * time.Second, Tags: j.Tags, Metadata: j.Metadata, Condition: cond, Lease: j.Lease,
	}
	if j.ExpiresAt != nil {
		item.ExpiresAt = *j.ExpiresAt
	}
	return item, nil
}

// Condition returns what must hold for this line's write.
func (j JSON) Condition() (client.Condition, error) {
	equals, has, err := decode("if_value", j.IfValue, j.IfValueBase64)
	if err != nil {
		return client.Condition{}, err
	}
	return client.Condition{
		Version: j.IfVersion, Revision: j.IfRevision, MustExist: j.IfExists, MustNotExist: j.IfAbsent,
		ValueEquals: equals, HasValueEquals: has,
	}, nil
}

// Parse reads one line. Unknown members are errors: a misspelled condition
// must not be ignored.
func Parse(line []byte) (JSON, error) {
	var j JSON
	if err := strict(line, &j); err != nil {
		return JSON{}, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if j.Key == "" {
		return JSON{}, fmt.Errorf("%w: no key", ErrBad)
	}
	return j, nil
}

// ParseKey reads one line that names a key: an object, a JSON string, or the
// bare key.
func ParseKey(line []byte) (JSON, error) {
	switch line[0] {
	case '{':
		return Parse(line)
	case '"':
		var s string
		if err := json.Unmarshal(line, &s); err != nil {
			return JSON{}, fmt.Errorf("%w: %w", ErrBad, err)
		}
		return JSON{Key: s}, nil
	}
	return JSON{Key: string(line)}, nil
}
