package router

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/replica"
	"kvstore/internal/wirebuf"
)

// The results of reads are written by hand into the bytes that are sent, as the
// records of lists are: the messages between cost more than the reads. Of a batch
// every part writes its own items; the last one to end puts them together.
// TestEncodedGets holds this to the generated code, and TestEncodedTransactions what
// transactions are answered with.
const (
	fieldResults      protowire.Number = 1 // of BatchGetResponse
	fieldResultRecord protowire.Number = 2 // of BatchGetResult

	fieldGetRecord      protowire.Number = 1 // of GetResponse
	fieldGetConsistency protowire.Number = 2
	fieldGetRevision    protowire.Number = 3
	fieldGetAge         protowire.Number = 4
)

// encodedGets is the answer around the bytes.
type encodedGets struct {
	result   api.PipelineResult_BatchGet
	response api.BatchGetResponse
}

// prepareEncoded gives a batch of n reads its answer.
func (st *callState) prepareEncoded(n int) {
	e := new(encodedGets)
	e.result.BatchGet = &e.response
	e.response.ReadRevision = uint64(st.at)
	st.call.Result.Result = &e.result
	st.encoded = make([][]byte, n)
}

// encode writes the result of the item at position i.
func (st *callState) encode(i int, key string, rec *format.Record, keysOnly bool) {
	value := rec.Value
	if keysOnly {
		value = nil
	}
	record := sizeRecord(len(key), value, rec)
	result := 1 + protowire.SizeBytes(record)
	size := 1 + protowire.SizeBytes(result)
	if cap(st.values)-len(st.values) < size {
		st.room(max(size, min((len(st.encoded)-i)*size, 16*maxSharedValue)))
	}
	from := len(st.values)
	b := protowire.AppendTag(st.values, fieldResults, protowire.BytesType)
	b = protowire.AppendTag(protowire.AppendVarint(b, uint64(result)), fieldResultRecord, protowire.BytesType)
	b = appendRecordBody(protowire.AppendVarint(b, uint64(record)), key, value, rec)
	st.values = b
	st.encoded[i] = b[from:len(b):len(b)]
}

// room takes n bytes for results: of a batch in parts it is lent, since assemble copies
// what it holds.
func (st *callState) room(n int) {
	if len(st.parts) == 1 {
		st.values = make([]byte, 0, n)
		return
	}
	b := wirebuf.Pool.Get(n)
	if st.lent == nil {
		st.lent = st.lentOne[:0]
	}
	st.lent = append(st.lent, b)
	st.values = (*b)[:0]
}

// encodedGet is the answer to a get around its bytes.
type encodedGet struct {
	result   api.PipelineResult_Get
	response api.GetResponse
}

// encodeGet answers a get. Its answer shares memory with those of the gets after it.
func (b *batchAnswer) encodeGet(key string, rec *format.Record) *api.PipelineResult_Get {
	value := rec.Value
	if b.keysOnly {
		value = nil
	}
	level, age := levelOf(b.read.point)
	record, rev := sizeRecord(len(key), value, rec), uint64(b.read.point.Rev)
	size := 1 + protowire.SizeBytes(record) + wirebuf.SizeNumber(uint64(level)) + wirebuf.SizeNumber(rev) + wirebuf.SizeNumber(uint64(age))
	if cap(b.encoded)-len(b.encoded) < size {
		b.encoded = make([]byte, 0, max(size, min((b.gets+1)*size, 16*maxSharedValue)))
	}
	from := len(b.encoded)
	out := protowire.AppendTag(b.encoded, fieldGetRecord, protowire.BytesType)
	out = appendRecordBody(protowire.AppendVarint(out, uint64(record)), key, value, rec)
	out = wirebuf.AppendNumber(out, fieldGetConsistency, uint64(level))
	out = wirebuf.AppendNumber(out, fieldGetRevision, rev)
	b.encoded = wirebuf.AppendNumber(out, fieldGetAge, uint64(age))
	e := new(encodedGet)
	e.response.ProtoReflect().SetUnknown(b.encoded[from:len(b.encoded):len(b.encoded)])
	e.result.Get = &e.response
	return &e.result
}

// encodeResult is encode for results that are rare.
func encodeResult(res *api.BatchGetResult) []byte {
	b := protowire.AppendTag(nil, fieldResults, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(proto.Size(res)))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, res)
	if err != nil { // a text that is not UTF-8
		return encodeResult(&api.BatchGetResult{Status: ErrorStatus(err)})
	}
	return b
}

// failEncoded answers the part's items with err.
func (p *part) failEncoded(err error) {
	b := encodeResult(&api.BatchGetResult{Status: ErrorStatus(err)})
	for n := range p.size() {
		p.st.encoded[p.item(n)] = b
	}
}

// answerEncoded answers a transaction that went well, and read nothing, with the
// bytes of its results, which its record has as well. It reports whether it did.
func (st *callState) answerEncoded(q *replica.Request) bool {
	b := st.answer
	if b == nil {
		room := roomFor(q)
		if room == 0 {
			return false
		}
		b, _ = st.appendAnswer(make([]byte, 0, room), q)
	}
	st.answerBytes(b, succeeded(q), revisionOf(q))
	return true
}

// answerBytes answers a transaction with its encoded response.
func (st *callState) answerBytes(b []byte, succeeded bool, rev uint64) {
	out := newTxnAnswer(0)
	out.response.Succeeded, out.response.Revision = succeeded, rev
	fields := wirebuf.SizeNumber(rev)
	if succeeded {
		fields += 2
	}
	out.response.ProtoReflect().SetUnknown(b[fields:])
	st.call.Result.Result = &out.result
}

// assemble puts encoded results together when the call is answered.
func (st *callState) assemble() {
	res, ok := st.call.Result.GetResult().(*api.PipelineResult_BatchGet)
	if !ok || st.encoded == nil {
		return
	}
	total := 0
	for _, item := range st.encoded {
		total += len(item)
	}
	all := st.values
	// One part that wrote all of them into one piece has them together, in order.
	if len(st.parts) > 1 || len(st.lent) > 0 || total != len(all) || &st.encoded[0][0] != &all[0] {
		all = make([]byte, 0, total)
		for _, item := range st.encoded {
			all = append(all, item...)
		}
	}
	for _, b := range st.lent {
		wirebuf.Pool.Put(b)
	}
	st.encoded, st.values, st.lent = nil, nil, nil
	res.BatchGet.ProtoReflect().SetUnknown(all)
}
