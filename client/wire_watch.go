package client

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// watchMessage is a WatchResponse as it came, in memory of its own.
type watchMessage struct{ raw []byte }

// watchCodec leaves messages undecoded.
type watchCodec struct{ encoding.CodecV2 }

var watchesCodec = watchCodec{encoding.GetCodecV2(encproto.Name)}

func (c watchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*watchMessage)
	if !ok {
		return fmt.Errorf("watch codec: cannot decode into %T", v)
	}
	m.raw = data.Materialize()
	return nil
}

// Fields of a WatchResponse, in the order in which they are meant to be read.
const fieldWatchCreated, fieldWatchBatches, fieldWatchProgress, fieldWatchEnded = 1, 2, 3, 4

// update is an Update as it came: undecoded batches, the last of them and those that
// its revision began in.
type update struct {
	batch    []byte
	before   *update
	events   int // in batch
	revision uint64
	token    []byte
	bytes    int // what all of it costs in memory
}

// updateBytes and eventBytes are what updates and events cost beside their encoding.
const updateBytes, eventBytes = 64, 256

// tokenText is the token as callers know it.
func (u *update) tokenText() string {
	var text [96]byte
	return string(base64.RawURLEncoding.AppendEncode(text[:0], u.token))
}

// decodePoint reads a WatchCreated.
func decodePoint(b []byte) (id uint64, u *update, err error) {
	u = &update{bytes: updateBytes}
	err = eachField(b, "WatchCreated", func(f field) error {
		switch f.number {
		case 1:
			id = f.num
		case 2:
			u.revision = f.num
		case 3:
			u.token = bytes.Clone(f.bytes) // of a message that may be large
		}
		return nil
	})
	return id, u, err
}

// decodeBatch reads a WatchBatch but for its events. The update keeps b.
func decodeBatch(b []byte) (id uint64, u *update, fragment bool, err error) {
	u = &update{batch: b, bytes: updateBytes + len(b)}
	for rest := b; len(rest) > 0; {
		f, next, ok := nextField(rest)
		if !ok {
			return 0, nil, false, malformed("WatchBatch")
		}
		switch f.number {
		case 1:
			id = f.num
		case 2:
			u.events++
		case 3:
			u.revision = f.num
		case 4:
			u.token = f.bytes
		case 5:
			fragment = f.num != 0
		}
		rest = next
	}
	u.bytes += u.events * eventBytes
	return id, u, fragment, nil
}

// decodeProgress calls each with the watches of a WatchProgress.
func decodeProgress(b []byte, each func(id uint64, u *update)) error {
	at := update{bytes: updateBytes}
	var ids []uint64
	err := eachField(b, "WatchProgress", func(f field) (err error) {
		switch f.number {
		case 1:
			ids, err = appendNumbers(ids, f)
		case 2:
			at.revision = f.num
		case 3:
			at.token = bytes.Clone(f.bytes) // as above
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		u := at
		each(id, &u)
	}
	return nil
}

// decodeEnded reads a WatchEnded: which watch, and why.
func decodeEnded(b []byte) (id uint64, why error, err error) {
	why = new(Error)
	err = eachField(b, "WatchEnded", func(f field) error {
		switch f.number {
		case 1:
			id = f.num
		case 2:
			if said := decodeStatus(f.bytes); said != nil {
				why = said
			}
		}
		return nil
	})
	return id, why, err
}

// decodeEvents appends the events of an update. Their values are parts of its
// memory; a key that equals key is that string.
func (u *update) decodeEvents(key string, into []Event) ([]Event, error) {
	if u.before != nil {
		var err error
		if into, err = u.before.decodeEvents(key, into); err != nil {
			return nil, err
		}
	}
	for rest := u.batch; len(rest) > 0; {
		f, next, ok := nextField(rest)
		if !ok {
			return nil, malformed("WatchBatch")
		}
		if f.number == 2 {
			into = append(into, Event{})
			if err := decodeEvent(f.bytes, key, &into[len(into)-1]); err != nil {
				return nil, err
			}
		}
		rest = next
	}
	return into, nil
}

// decodeEvent reads a WatchEvent.
func decodeEvent(b []byte, key string, e *Event) (err error) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("WatchEvent")
		}
		switch f.number {
		case 1:
			e.Type = EventType(signed(f.num))
		case 2:
			err = decodeShared(f.bytes, key, &e.Record)
		case 3:
			e.Previous = new(Record)
			err = decodeShared(f.bytes, key, e.Previous)
		case 4:
			e.Reason = string(f.bytes)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// decodeShared reads a Record whose value stays a part of b.
func decodeShared(b []byte, key string, r *Record) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("Record")
		}
		if f.number == 2 {
			r.Value = f.bytes[:len(f.bytes):len(f.bytes)]
		} else if err := decodeRecordField(f, key, r); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// appendNumbers appends what a repeated number has, packed or one by one.
func appendNumbers(to []uint64, f field) ([]uint64, error) {
	if f.bytes == nil {
		return append(to, f.num), nil
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return to, malformed("numbers")
		}
		to, b = append(to, v), b[n:]
	}
	return to, nil
}
