package rest

import (
	"mime"
	"net/http"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/server/status"
	"kvstore/internal/txnform"
)

// transactionEnvelope answers a transaction; results are those of the list that
// was taken.
type transactionEnvelope struct {
	Succeeded bool     `json:"succeeded"`
	Revision  revision `json:"revision"`
	// Results are of these four types.
	Results []any `json:"results"`
}

type transactionPut struct {
	Type string `json:"type"`
	putResult
}

type transactionDelete struct {
	Type string `json:"type"`
	deleteResult
}

type transactionCheck struct {
	Type string `json:"type"`
	Key  string `json:"key"`
}

type transactionGet struct {
	Type string `json:"type"`
	getResult
}

// transaction executes a body of JSON or YAML in the form of S3.9. When a
// condition of the list that is taken does not hold nothing happened: that is a
// problem as it is for a single write.
func (s *Server) transaction(q *request) error {
	form, err := readTransaction(q)
	if err != nil {
		return err
	}
	if name := q.query.text("namespace"); name != "" {
		if form.Namespace != "" && form.Namespace != name {
			return fault.New(fault.InvalidArgument, "query and body name different namespaces", "query", clip(name), "body", clip(form.Namespace))
		}
		form.Namespace = name
	}
	req, err := form.Request()
	if err != nil {
		return err
	}
	if req.RequestId, err = requestID(q, req.RequestId); err != nil {
		return err
	}
	if req.Fence, err = transactionFence(q, req.Fence); err != nil {
		return err
	}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: req}})
	if err != nil {
		return err
	}
	txn := res.GetTransaction()
	list, name := req.Then, "then"
	if !txn.GetSucceeded() {
		list, name = req.Otherwise, "otherwise"
	}
	if err := aborted(txn, list, name); err != nil {
		return err
	}
	return writeTransaction(q, txn, list)
}

// transactionFence is the fence of a transaction, which its body or its header has.
func transactionFence(q *request, body *api.Fence) (*api.Fence, error) {
	header, err := readFence(q)
	switch {
	case err != nil:
		return nil, err
	case header == nil:
		return body, nil
	case body != nil && !proto.Equal(header, body):
		return nil, badHeader(headerFence, "differs from the fence of the body", q.r.Header.Get(headerFence))
	}
	return header, nil
}

func writeTransaction(q *request, txn *api.TransactionResponse, list []*api.TransactionOp) error {
	out := transactionEnvelope{Succeeded: txn.GetSucceeded(), Revision: revision(txn.GetRevision()), Results: make([]any, len(list))}
	for i, op := range list {
		out.Results[i] = resultOf(op, txn.GetResults()[i])
	}
	return writeJSON(q, http.StatusOK, out)
}

// readTransaction decodes a body of application/json or application/yaml.
func readTransaction(q *request) (*txnform.Form, error) {
	if jsonContent(q.r.Header) == nil {
		form := new(txnform.Form)
		return form, readJSON(q, maxBatchBody, form)
	}
	text := q.r.Header.Get("Content-Type")
	if kind, _, err := mime.ParseMediaType(text); err != nil || kind != "application/yaml" || q.r.Header.Get("Content-Encoding") != "" {
		return nil, &httpError{status: http.StatusUnsupportedMediaType,
			fault: fault.New(fault.Unsupported, "the body must be application/json or application/yaml, without an encoding", "actual", clip(text))}
	}
	body, err := readBody(q, maxBatchBody, bodyTooLarge)
	if err != nil {
		return nil, err
	}
	return txnform.ParseYAML(body)
}

// aborted is what kept a list from being executed, with its place: a condition that
// does not hold, or a deadline that has passed.
func aborted(txn *api.TransactionResponse, ops []*api.TransactionOp, name string) error {
	for i, r := range txn.GetResults() {
		err := status.FromItem(r.GetStatus())
		if code := fault.CodeOf(err); ops[i].GetGet() == nil && err != nil && code != fault.BatchAborted {
			f := status.Fault(err)
			e := fault.New(f.Code, f.Message, "list", name, "item", i)
			for k, v := range f.Details {
				e.Details[k] = v
			}
			return e
		}
	}
	return nil
}

// resultOf is the result of one operation; a GET of a key that is not there has an
// error.
func resultOf(op *api.TransactionOp, r *api.TransactionResult) any {
	switch o := op.GetOp().(type) {
	case *api.TransactionOp_Put:
		e := putEnvelopeOf(r.GetPut())
		return transactionPut{"PUT", putResult{Key: o.Put.GetKey(), putEnvelope: &e}}
	case *api.TransactionOp_Touch:
		e := putEnvelopeOf(r.GetPut())
		return transactionPut{"TOUCH", putResult{Key: o.Touch.GetKey(), putEnvelope: &e}}
	case *api.TransactionOp_Delete:
		e := deleteEnvelope{Existed: r.GetDelete().GetExisted(), Revision: revision(r.GetDelete().GetRevision())}
		return transactionDelete{"DELETE", deleteResult{Key: o.Delete.GetKey(), deleteEnvelope: &e}}
	case *api.TransactionOp_Check:
		return transactionCheck{"CHECK", o.Check.GetKey()}
	}
	out := transactionGet{"GET", getResult{Key: op.GetGet().GetKey(), Error: itemError(r.GetStatus())}}
	if out.Error == nil {
		e := listed(r.GetGet(), op.GetGet().GetKeysOnly())
		out.Record = &e
	}
	return out
}
