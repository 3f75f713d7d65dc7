package txnform

import (
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// Answer is what the client of a request was told, nil when it is not kept.
func Answer(o *api.RequestOutcome) proto.Message {
	switch a := o.GetAnswer().(type) {
	case *api.RequestOutcome_Put:
		return a.Put
	case *api.RequestOutcome_Delete:
		return a.Delete
	case *api.RequestOutcome_BatchPut:
		return a.BatchPut
	case *api.RequestOutcome_BatchDelete:
		return a.BatchDelete
	case *api.RequestOutcome_Transaction:
		return a.Transaction
	}
	return nil
}
