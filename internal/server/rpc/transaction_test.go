package rpc

import (
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
)

func TestTransactions(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	version := uint64(0)
	value := []byte(strings.Repeat("v", 1000))
	q := &api.TransactionRequest{
		Checks:    []*api.TransactionCheck{{Key: "k", Condition: &api.Condition{VersionMatch: &version}}},
		Then:      []*api.TransactionOp{{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "k", Value: value}}}},
		Otherwise: []*api.TransactionOp{{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: "k"}}}},
	}
	first, err := f.client.Transaction(t.Context(), q)
	if err != nil || !first.Succeeded || first.Results[0].GetPut().GetVersion() != 1 || first.Revision != first.Results[0].GetPut().Revision {
		t.Fatalf("%v %v", first, err)
	}
	stream, err := f.client.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 7, Op: &api.PipelineOp_Transaction{Transaction: q}}}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if second := resp.Results[0].GetTransaction(); resp.Results[0].Id != 7 || second.GetSucceeded() || string(second.Results[0].GetGet().GetValue()) != string(value) {
		t.Fatalf("%v", resp)
	}
}

// A transaction holds what its values take: of the request, and of the list that
// answers more.
func TestTransactionIsMeasured(t *testing.T) {
	get := &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: "k"}}}
	put := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "k", Value: make([]byte, 5000)}}}
	op := &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
		Checks: []*api.TransactionCheck{{Key: "k", Condition: &api.Condition{ValueEquals: make([]byte, 3000)}}},
		Then:   []*api.TransactionOp{put, get}, Otherwise: []*api.TransactionOp{get, get, get},
	}}}
	request, answer := opBytes(op, 100)
	if request < 8000 || request > 8000+10*perOperation || answer != 300 {
		t.Fatalf("%d bytes of request, %d of answer", request, answer)
	}
	res := &api.PipelineResult{Result: &api.PipelineResult_Transaction{Transaction: &api.TransactionResponse{
		Results: []*api.TransactionResult{{Result: &api.TransactionResult_Get{Get: &api.Record{Value: make([]byte, 9000)}}}},
	}}}
	if size := resultBytes(res); size < 9000 || size > 9000+3*perOperation {
		t.Fatalf("%d bytes of result", size)
	}
	res.GetTransaction().Results = nil
	res.GetTransaction().ProtoReflect().SetUnknown(make([]byte, 9000)) // see router.Call.Encoded
	if size := resultBytes(res); size < 9000 || size > 9000+3*perOperation {
		t.Fatalf("%d bytes of result", size)
	}
	if methodOf(op) != "Transaction" {
		t.Fatal(methodOf(op))
	}
}
