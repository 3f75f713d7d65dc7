package router

import (
	"fmt"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Keys that are written twice are found in lists of all lengths, wherever they are.
func TestKeysWrittenTwice(t *testing.T) {
	for n := range 24 {
		q := &api.TransactionRequest{Otherwise: []*api.TransactionOp{putOf("elsewhere")}}
		for i := range n {
			q.Then = append(q.Then, putOf(fmt.Sprint(i)))
		}
		if err := validateTransaction(q); err != nil {
			t.Fatalf("%d keys: %v", n, err)
		}
		for first := range n {
			again := &api.TransactionRequest{Then: append(q.Then[:n:n], delOf(fmt.Sprint(first)))}
			err := validateTransaction(again)
			if want := fmt.Sprint(first); fault.CodeOf(err) != fault.InvalidArgument || asFault(err).Details["first"] != want || asFault(err).Details["second"] != fmt.Sprint(n) {
				t.Errorf("key %d of %d again: %v", first, n, err)
			}
		}
	}
}
