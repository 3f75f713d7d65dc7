package client

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// pageCodec leaves a ListResponse undecoded in its unknown fields, in memory
// of its own: decodePage reads it straight into the caller's records.
type pageCodec struct{ encoding.CodecV2 }

var listCodec = pageCodec{encoding.GetCodecV2(encproto.Name)}

func (c pageCodec) Unmarshal(data mem.BufferSlice, v any) error {
	page, ok := v.(*api.ListResponse)
	if !ok {
		return fmt.Errorf("page codec: cannot decode into %T", v)
	}
	proto.Reset(page)
	page.ProtoReflect().SetUnknown(data.Materialize())
	return nil
}

// decodePage reads a ListResponse. The values are parts of b, which is the
// page's from then on; the keys are parts of one string.
func decodePage(b []byte, p *Page) error {
	count := countFields(b, 1)
	p.Records = make([]Record, 0, count)
	keys := pageKeys{ends: make([]int, 0, count), bytes: make([]byte, 0, 32*count)}
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("ListResponse")
		}
		switch f.number {
		case 1:
			p.Records = append(p.Records, Record{})
			if err := decodeListed(f.bytes, &keys, &p.Records[len(p.Records)-1]); err != nil {
				return err
			}
		case 2:
			p.Token = string(f.bytes)
		case 3:
			p.Revision = f.num
		case 4:
			p.Count = f.num
		case 60:
			p.Consistency = Consistency(signed(f.num))
		case 61:
			p.Age = millis(signed(f.num))
		}
		b = rest
	}
	keys.give(p.Records)
	return nil
}

// countFields counts the fields of a number, up to what is malformed.
func countFields(b []byte, number protowire.Number) (n int) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return n
		}
		if f.number == number {
			n++
		}
		b = rest
	}
	return n
}

// decodeListed reads a record of a page; its key is added to keys.
func decodeListed(b []byte, keys *pageKeys, r *Record) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("Record")
		}
		switch f.number {
		case 1:
			keys.bytes = append(keys.bytes, f.bytes...)
		case 2:
			r.Value = f.bytes[:len(f.bytes):len(f.bytes)]
		default:
			if err := decodeRecordField(f, "", r); err != nil {
				return err
			}
		}
		b = rest
	}
	keys.ends = append(keys.ends, len(keys.bytes))
	return nil
}

// pageKeys are the keys of a page one behind the other.
type pageKeys struct {
	bytes []byte
	ends  []int
}

// give makes one string of all and cuts each record's key out of it.
func (k *pageKeys) give(records []Record) {
	all, from := string(k.bytes), 0
	for i := range records {
		records[i].Key = all[from:k.ends[i]]
		from = k.ends[i]
	}
}
