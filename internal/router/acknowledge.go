package router

import (
	"fmt"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/replica"
)

// acknowledge fills the answer of a local write from its operations' results.
func (p *part) acknowledge(q *replica.Request) {
	c := p.st.call
	switch p.st.kind {
	case kindPut:
		if o := &q.Ops[0]; o.Result.Err != nil {
			c.fail(o.Result.Err)
		} else {
			c.Result.Result = answerPut(o)
		}
	case kindTouch:
		if o := &q.Ops[0]; o.Result.Err != nil {
			c.fail(o.Result.Err)
		} else {
			answer := new(api.PutResponse)
			fillPut(answer, o)
			c.Result.Result = &api.PipelineResult_Touch{Touch: answer}
		}
	case kindDelete:
		if o := &q.Ops[0]; o.Result.Err != nil {
			c.fail(o.Result.Err)
		} else {
			answer := new(api.DeleteResponse)
			fillDelete(answer, o)
			c.Result.Result = &api.PipelineResult_Delete{Delete: answer}
		}
	case kindBatchPut:
		for n := range q.Ops {
			if o, slot := &q.Ops[n], &p.st.puts[p.item(n)]; o.Result.Err != nil {
				slot.result.Status = ErrorStatus(o.Result.Err)
			} else {
				fillPut(&slot.answer, o)
				slot.result.Put = &slot.answer
			}
		}
	case kindBatchDelete:
		for n := range q.Ops {
			if o, slot := &q.Ops[n], &p.st.deletes[p.item(n)]; o.Result.Err != nil {
				slot.result.Status = ErrorStatus(o.Result.Err)
			} else {
				fillDelete(&slot.answer, o)
				slot.result.Delete = &slot.answer
			}
		}
	default:
		panic(fmt.Sprintf("router: kind %d is no write", p.st.kind))
	}
	p.finish()
}
