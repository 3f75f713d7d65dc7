package keyspace

import (
	"encoding/json"
	"testing"
)

// A replica's id tells whether it is a witness, also after JSON as others read
// it, which keeps 53 bits.
func TestReplicaIDSaysWitness(t *testing.T) {
	for _, number := range []ReplicaID{1, 7, 1 << 40, 1<<52 - 1} {
		w := number.AsWitness()
		if number.Witness() || !w.Witness() || w.Number() != number || number.Number() != number {
			t.Fatalf("%d and %d", number, w)
		}
		b, err := json.Marshal(w)
		var f float64
		if err != nil || json.Unmarshal(b, &f) != nil || ReplicaID(f) != w {
			t.Fatalf("%d became %v in JSON (%v)", w, f, err)
		}
	}
	if got := ReplicaID(4).AsWitness().String() + " " + ReplicaID(4).String(); got != "4w 4" {
		t.Fatal(got)
	}
}
