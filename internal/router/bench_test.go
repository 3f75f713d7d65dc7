package router

import (
	"context"
	"fmt"
	"testing"
)

// The router's own cost of an operation, without host and network.
func BenchmarkDo(b *testing.B) {
	h := newHost("a")
	r, err := New(Options{Node: "a", Host: h, Peers: &fakePeers{}, Directory: &fakeDirectory{m: testMap()}, Clock: newClock(), Rand: &countRand{}})
	if err != nil {
		b.Fatal(err)
	}
	var calls []*Call
	for i := range 64 {
		calls = append(calls, putCall("", fmt.Sprint("key", i), "value"))
	}
	r.Do(context.Background(), calls...)
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint("put/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.submits = h.submits[:0]
				r.Do(context.Background(), calls[:n]...)
			}
		})
		gets := make([]*Call, n)
		for i := range gets {
			gets[i] = getCall("", fmt.Sprint("key", i))
		}
		b.Run(fmt.Sprint("get/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.reads = h.reads[:0]
				r.Do(context.Background(), gets...)
			}
		})
	}
}
