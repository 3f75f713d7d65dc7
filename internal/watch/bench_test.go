package watch_test

import (
	"fmt"
	"runtime"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/watch"
	"kvstore/internal/watch/watchtest"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemoryPerWatch reports what an open watch keeps in memory: 100,000
// keys on one stream, and 1,000 streams with one each.
func BenchmarkMemoryPerWatch(b *testing.B) {
	for _, c := range []struct{ streams, each int }{{1, 100_000}, {1000, 1}} {
		b.Run(fmt.Sprintf("%dx%d", c.streams, c.each), func(b *testing.B) {
			n := watchtest.New(b, 3, nil)
			h := n.Hub(nil)
			for range b.N {
				before := heap()
				open := make([]*listener, c.streams)
				for i := range open {
					open[i] = listen(b, h)
					for k := range c.each {
						open[i].create(&api.WatchCreate{WatchId: uint64(k + 1), Key: fmt.Sprintf("tenant/%d/user/%07d", i, k)})
					}
					open[i].open(uint64(c.each))
					open[i].until("all are open", func() bool { return len(open[i].created) == c.each })
				}
				for _, l := range open {
					clear(l.created)
					clear(l.position)
					clear(l.tokens)
					l.created, l.position, l.tokens = nil, nil, nil
				}
				b.ReportMetric(float64(heap()-before)/float64(c.streams*c.each), "B/watch")
				for _, l := range open {
					l.stream.Close()
				}
			}
		})
	}
}

// BenchmarkOneEventToManyWatches is a put and its delivery to 1,000 watches of one
// stream, encoded.
func BenchmarkOneEventToManyWatches(b *testing.B) {
	n := watchtest.New(b, 1, nil)
	l := listen(b, n.Hub(func(o *watch.Options) { o.StreamBytes = 64 << 20 }))
	for id := range uint64(1000) {
		l.create(&api.WatchCreate{WatchId: id + 1, Key: "k"})
	}
	l.until("all are open", func() bool { return len(l.created) == 1000 })
	b.ReportAllocs()
	for b.Loop() {
		n.Put("k", "value")
		m, err := l.stream.Next()
		if err != nil {
			b.Fatal(err)
		}
		m.Buffers().Free()
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
}
