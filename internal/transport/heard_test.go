package transport

import (
	"sync/atomic"
	"testing"
	"time"
)

type handClock struct{ mono atomic.Int64 }

func (c *handClock) Wall() int64         { return 1 }
func (c *handClock) Mono() time.Duration { return time.Duration(c.mono.Load()) }

// A node is unheard since its last frame, or since the start.
func TestUnheard(t *testing.T) {
	overCarriers(t, func(t *testing.T, streams bool) {
		clock := &handClock{}
		clock.mono.Store(int64(time.Hour))
		a := mustNode(t, "a", nodeOptions{streams: streams, transport: func(o *Options) { o.Clock = clock }})
		b := mustNode(t, "b", nodeOptions{streams: streams})
		clock.mono.Add(int64(time.Minute))
		if got := a.Unheard("b"); got != time.Minute {
			t.Fatalf("before anything came: %v", got)
		}
		link(t, b, a)
		b.Send("a", raftMessage(1, []byte("x")))
		b.Flush()
		a.collect(t, 1)
		if got := a.Unheard("b"); got != 0 {
			t.Fatalf("after a frame: %v", got)
		}
		clock.mono.Add(int64(3 * time.Second))
		if got := a.Unheard("b"); got != 3*time.Second {
			t.Fatalf("later: %v", got)
		}
	})
}
