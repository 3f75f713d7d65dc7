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
			answer := new(api.PutResponse)
			fillPut(answer, o)
			c.Result.Result = &api.PipelineResult_Put{Put: answer}
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
		results := c.Result.GetBatchPut().Results
		answers := make([]api.PutResponse, len(q.Ops))
		for n := range q.Ops {
			if o, res := &q.Ops[n], results[p.item(n)]; o.Result.Err != nil {
				res.Status = ErrorStatus(o.Result.Err)
			} else {
				res.Put = &answers[n]
				fillPut(res.Put, o)
			}
		}
	case kindBatchDelete:
		results := c.Result.GetBatchDelete().Results
		answers := make([]api.DeleteResponse, len(q.Ops))
		for n := range q.Ops {
			if o, res := &q.Ops[n], results[p.item(n)]; o.Result.Err != nil {
				res.Status = ErrorStatus(o.Result.Err)
			} else {
				res.Delete = &answers[n]
				fillDelete(res.Delete, o)
			}
		}
	default:
		panic(fmt.Sprintf("router: kind %d is no write", p.st.kind))
	}
	p.finish()
}
