package wirebuf

import (
	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
)

// Messages that are many are written by hand where the generated code costs more than
// what they tell. Numbers of fields here are below 16: their tags take one byte.

// SizeNumber is the length of what AppendNumber writes.
func SizeNumber(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// AppendNumber appends a field, unless it is 0.
func AppendNumber(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(number)<<3|byte(protowire.VarintType)), v)
}

// SizePut is the length of what AppendPut writes.
func SizePut(p *api.PutResponse) int {
	return SizeNumber(p.Version) + SizeNumber(p.Revision) + SizeNumber(uint64(p.CreatedAtMs)) +
		SizeNumber(uint64(p.UpdatedAtMs)) + SizeNumber(uint64(p.ExpiresAtMs)) + SizeNumber(uint64(p.Checksum))
}

// AppendPut appends the fields of a put's answer.
func AppendPut(b []byte, p *api.PutResponse) []byte {
	b = AppendNumber(b, 1, p.Version)
	b = AppendNumber(b, 2, p.Revision)
	b = AppendNumber(b, 3, uint64(p.CreatedAtMs))
	b = AppendNumber(b, 4, uint64(p.UpdatedAtMs))
	b = AppendNumber(b, 5, uint64(p.ExpiresAtMs))
	return AppendNumber(b, 6, uint64(p.Checksum))
}

// SizeBatchPut is the length of what AppendBatchPut writes, 0 of an answer that it does
// not: one with an error, or with nothing in it.
func SizeBatchPut(a *api.BatchPutResponse) (n int) {
	for _, r := range a.GetResults() {
		if r == nil || r.Status != nil || r.Put == nil || len(r.ProtoReflect().GetUnknown()) > 0 || len(r.Put.ProtoReflect().GetUnknown()) > 0 {
			return 0
		}
		put := SizePut(r.Put)
		n += 1 + protowire.SizeBytes(1+protowire.SizeBytes(put))
	}
	if len(a.ProtoReflect().GetUnknown()) > 0 {
		return 0
	}
	return n
}

// AppendBatchPut appends the fields of the answer to a batch of puts.
func AppendBatchPut(b []byte, a *api.BatchPutResponse) []byte {
	const results, inPut = 1<<3 | byte(protowire.BytesType), 2<<3 | byte(protowire.BytesType)
	for _, r := range a.Results {
		put := SizePut(r.Put)
		b = protowire.AppendVarint(append(b, results), uint64(1+protowire.SizeBytes(put)))
		b = AppendPut(protowire.AppendVarint(append(b, inPut), uint64(put)), r.Put)
	}
	return b
}

// BytesOfBatch is BytesOf for a batch of gets.
func BytesOfBatch(g *api.BatchGetResponse) []byte {
	if g == nil || len(g.Results) > 0 || g.ReadRevision != 0 {
		return nil
	}
	return g.ProtoReflect().GetUnknown()
}

// BytesOf returns what an answer to a get consists of that is nothing but bytes, nil of
// others.
func BytesOf(g *api.GetResponse) []byte {
	if g == nil || g.Record != nil || g.Consistency != 0 || g.ReadRevision != 0 || g.AgeMs != 0 {
		return nil
	}
	return g.ProtoReflect().GetUnknown()
}
