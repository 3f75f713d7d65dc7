package transport

import (
	"fmt"
	"testing"
)

// BenchmarkFrames moves messages over loopback, a flush every 64.
func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkFrames(b, size) })
	}
}

func benchmarkFrames(b *testing.B, size int) {
	from, to := mustNode(b, "a", nodeOptions{}), mustNode(b, "b", nodeOptions{})
	link(b, from, to)
	await(b, from.up, "the peer")
	m := raftMessage(1, make([]byte, size))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	const window = 256
	sent, got := 0, 0
	for b.Loop() {
		from.Send("b", m)
		if sent++; sent%64 == 0 {
			from.Flush()
			for sent-got > window {
				got += len((<-to.in.frames).msgs)
			}
		}
	}
	from.Flush()
	for got < sent {
		got += len((<-to.in.frames).msgs)
	}
}
