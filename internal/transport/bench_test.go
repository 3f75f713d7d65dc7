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

// BenchmarkForward sends a frame over loopback and waits for its results, on either
// carrier. Several frames on their way at once would be another matter: gRPC writes
// them together, a link one by one, which is why the router makes one frame of what
// waits.
func BenchmarkForward(b *testing.B) {
	for name, streams := range map[string]bool{"links": false, "streams": true} {
		b.Run(name, func(b *testing.B) { benchmarkForward(b, streams) })
	}
}

func benchmarkForward(b *testing.B, streams bool) {
	from, to := mustNode(b, "a", nodeOptions{}), mustNode(b, "b", nodeOptions{forward: echoed, forwardStreams: streams})
	link(b, from, to)
	await(b, from.up, "the peer")
	s, cancel := mustForward(b, from, to)
	defer cancel()
	frame := putFrame(1, make([]byte, 256))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(frame); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}
