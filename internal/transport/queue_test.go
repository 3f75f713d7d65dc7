package transport

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func testQueue() *queue {
	return newQueue(&Options{QueueBytes: 64 << 10, QueueMessages: 100, FrameBytes: 16 << 10})
}

// TestQueueBounds: a full queue drops and counts, keeps a reserve for small
// messages, and has room again when frames are taken.
func TestQueueBounds(t *testing.T) {
	q := testQueue()
	large, small := raftMessage(1, make([]byte, 4<<10)), raftMessage(1, make([]byte, 8))
	pushed := 0
	for q.push(large) {
		pushed++
	}
	if bytes, messages, dropped := q.depth(); pushed != 13 || messages != 13 || dropped.full != 1 || bytes > 56<<10 {
		t.Fatalf("%d pushed, %d bytes, %d messages, %+v", pushed, bytes, messages, dropped)
	}
	for q.push(small) {
		pushed++
	}
	if _, messages, dropped := q.depth(); messages != 100 || dropped.full != 2 {
		t.Fatalf("%d messages, %+v", messages, dropped)
	}
	taken := 0
	for f := q.pop(); f != nil; f = q.pop() {
		if f.size() > 16<<10 {
			t.Fatalf("a frame of %d bytes", f.size())
		}
		taken += f.messages
		f.release()
	}
	if bytes, messages, _ := q.depth(); taken != 100 || bytes != 0 || messages != 0 {
		t.Fatalf("took %d, left %d bytes, %d messages", taken, bytes, messages)
	}
	if !q.push(large) {
		t.Fatal("an empty queue takes nothing")
	}
}

// TestQueueExtremes: a message above the queue's bytes passes alone, one above
// MaxMessageBytes never does.
func TestQueueExtremes(t *testing.T) {
	q := testQueue()
	if q.push(raftMessage(1, make([]byte, MaxMessageBytes))) {
		t.Fatal("took a message above MaxMessageBytes")
	}
	if !q.push(raftMessage(1, make([]byte, 1<<20))) || q.push(raftMessage(1, make([]byte, 1<<20))) {
		t.Fatal("a large message must pass, but only alone")
	}
	q.discard()
	if bytes, messages, d := q.depth(); bytes != 0 || messages != 0 || d != (dropCounts{full: 1, tooLarge: 1, down: 1}) {
		t.Fatalf("%d bytes, %d messages, %+v", bytes, messages, d)
	}
}

// TestFlushWakes: nothing wakes the sender but a flush with something to send.
func TestFlushWakes(t *testing.T) {
	q := testQueue()
	q.flush()
	q.push(raftMessage(1, nil))
	if len(q.wake) != 0 {
		t.Fatal("woken without need")
	}
	q.flush()
	q.flush()
	if len(q.wake) != 1 {
		t.Fatal("not woken")
	}
}

func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(1 << 20)
		start := time.Now()
		for range 40 {
			if err := p.wait(context.Background(), 256<<10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 9800*time.Millisecond || took > 10*time.Second {
			t.Fatalf("10 MB at 1 MB/s took %v", took)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := p.wait(ctx, 10<<20); !errors.Is(err, context.Canceled) {
			t.Fatalf("wait: %v", err)
		}
	})
}
