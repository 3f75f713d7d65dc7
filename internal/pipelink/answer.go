package pipelink

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/wirebuf"
)

// Answers are written by hand where they are many: those of gets, whose records are in
// bytes already, and those of puts, each of one or of a batch. TestAnswers holds this to
// the generated code, which writes the others.

const (
	fieldResults protowire.Number = 1 // of PipelineResponse

	fieldResultID       protowire.Number = 1 // of PipelineResult
	fieldResultPut      protowire.Number = 3
	fieldResultGet      protowire.Number = 4
	fieldResultBatchPut protowire.Number = 6
	fieldResultBatchGet protowire.Number = 7
)

// answers is how one PipelineResponse is written; its memory is used again.
type answers struct {
	// sizes are those of the results without tag and length, inner those of the
	// answers in them; an inner size of 0 is a result for the generated code.
	sizes, inner []int
	total        int
}

// measure adds up what q takes.
func (a *answers) measure(q *api.PipelineResponse) {
	a.total, a.sizes, a.inner = 0, a.sizes[:0], a.inner[:0]
	for _, r := range q.GetResults() {
		inner := handwritten(r)
		size := inner
		if inner > 0 {
			size += 1 + protowire.SizeVarint(uint64(inner)) + wirebuf.SizeNumber(r.Id)
		} else {
			size = proto.Size(r)
		}
		a.sizes, a.inner = append(a.sizes, size), append(a.inner, inner)
		a.total += 1 + protowire.SizeBytes(size)
	}
}

// handwritten is the size of the answer in a result that is written by hand, 0 for
// others.
func handwritten(r *api.PipelineResult) int {
	if r == nil || r.Status != nil || len(r.ProtoReflect().GetUnknown()) > 0 {
		return 0
	}
	switch o := r.Result.(type) {
	case *api.PipelineResult_Get:
		return len(wirebuf.BytesOf(o.Get))
	case *api.PipelineResult_Put:
		if p := o.Put; p != nil && len(p.ProtoReflect().GetUnknown()) == 0 {
			return wirebuf.SizePut(p)
		}
	case *api.PipelineResult_BatchPut:
		return wirebuf.SizeBatchPut(o.BatchPut)
	case *api.PipelineResult_BatchGet:
		return len(wirebuf.BytesOfBatch(o.BatchGet))
	}
	return 0
}

// append writes q, which was measured.
func (a *answers) append(b []byte, q *api.PipelineResponse) (_ []byte, err error) {
	for i, r := range q.GetResults() {
		b = protowire.AppendTag(b, fieldResults, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(a.sizes[i]))
		if a.inner[i] == 0 {
			if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, r); err != nil {
				return nil, err
			}
			continue
		}
		b = appendHandwritten(wirebuf.AppendNumber(b, fieldResultID, r.Id), r, a.inner[i])
	}
	return b, nil
}

// appendHandwritten writes the answer in r, which has size bytes.
func appendHandwritten(b []byte, r *api.PipelineResult, size int) []byte {
	head := func(field protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
	}
	switch o := r.Result.(type) {
	case *api.PipelineResult_Get:
		return append(head(fieldResultGet), wirebuf.BytesOf(o.Get)...)
	case *api.PipelineResult_Put:
		return wirebuf.AppendPut(head(fieldResultPut), o.Put)
	case *api.PipelineResult_BatchPut:
		return wirebuf.AppendBatchPut(head(fieldResultBatchPut), o.BatchPut)
	case *api.PipelineResult_BatchGet:
		return append(head(fieldResultBatchGet), wirebuf.BytesOfBatch(o.BatchGet)...)
	}
	panic(fmt.Sprintf("pipelink: an answer of type %T is not written by hand", r.Result))
}

// maxAnswers bounds the memory that is kept for measuring.
const maxAnswers = 4096

// respond writes a response as one frame.
func (s *Stream) respond(q *api.PipelineResponse) error {
	a := &s.answers
	a.measure(q)
	if a.total > s.maxBytes {
		return tooLarge(s.maxBytes, a.total)
	}
	buf := wirebuf.Pool.Get(HeadBytes + a.total)
	defer wirebuf.Pool.Put(buf)
	b, err := a.append((*buf)[:HeadBytes], q)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "frame cannot be encoded", "bytes", a.total)
	}
	if cap(a.sizes) > maxAnswers {
		*a = answers{}
	}
	PutHead(b, Frame)
	return s.write(b)
}
