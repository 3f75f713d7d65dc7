package transport

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
)

const (
	// smallMessage is the size up to which a message may use the queue's
	// reserve. Heartbeats, votes, acknowledgements and read confirmations are
	// below it.
	smallMessage = 512
	// reserveShare: one part in this many of a queue is kept for small
	// messages.
	reserveShare = 8
	// frameOverhead leaves room in a frame for its header fields.
	frameOverhead = 512
	// messagesField is the number of Frame.messages.
	messagesField protowire.Number = 6
)

// queue holds the encoded frames that wait for one peer.
type queue struct {
	maxBytes, maxMessages, frameBytes int
	// wake has capacity one; flush fills it.
	wake chan struct{}

	mu sync.Mutex
	// frames, oldest first; messages are added to the last one. mu must be
	// held for these and the counters.
	frames   []*frame
	bytes    int
	messages int
	dropped  dropCounts
}

// dropCounts are messages that were not sent.
type dropCounts struct{ full, tooLarge, down int64 }

func newQueue(o *Options) *queue {
	return &queue{
		maxBytes:    o.QueueBytes,
		maxMessages: o.QueueMessages,
		frameBytes:  o.FrameBytes,
		wake:        make(chan struct{}, 1),
	}
}

// push encodes m into the last frame, or a new one, or drops it.
func (q *queue) push(m *api.GroupMessage) bool {
	size := messageSize(m)
	need := protowire.SizeTag(messagesField) + protowire.SizeBytes(size)

	q.mu.Lock()
	defer q.mu.Unlock()
	if need+frameOverhead > MaxMessageBytes {
		q.dropped.tooLarge++
		return false
	}
	if !q.admits(need) {
		q.dropped.full++
		return false
	}
	f := q.open(need)
	f.append(m, size, need)
	q.bytes += need
	q.messages++
	return true
}

// admits reports whether a message of n bytes still fits. A message larger
// than the whole queue fits an empty one.
func (q *queue) admits(n int) bool {
	bytes, messages := q.maxBytes, q.maxMessages
	if n > smallMessage {
		bytes -= bytes / reserveShare
		messages -= messages / reserveShare
	}
	if q.messages+1 > messages {
		return false
	}
	return q.bytes+n <= bytes || q.bytes == 0
}

// open returns the frame that takes n more bytes.
func (q *queue) open(n int) *frame {
	if len(q.frames) > 0 {
		last := q.frames[len(q.frames)-1]
		if last.size()+n+frameOverhead <= q.frameBytes {
			return last
		}
	}
	f := newFrame()
	q.frames = append(q.frames, f)
	return f
}

// flush wakes the sender if anything waits.
func (q *queue) flush() {
	q.mu.Lock()
	waiting := len(q.frames) > 0
	q.mu.Unlock()
	if !waiting {
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop takes the oldest frame, nil when there is none. The caller owns it.
func (q *queue) pop() *frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.frames) == 0 {
		return nil
	}
	f := q.frames[0]
	q.frames[0] = nil
	q.frames = q.frames[1:]
	if len(q.frames) == 0 {
		q.frames = nil
	}
	q.messages -= f.messages
	q.bytes -= f.size()
	if q.bytes < 0 || q.messages < 0 {
		panic(fmt.Sprintf("transport: queue counts %d bytes, %d messages after a pop", q.bytes, q.messages))
	}
	return f
}

// discard drops everything that waits; the peer cannot be reached.
func (q *queue) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.frames {
		q.dropped.down += int64(f.messages)
		f.release()
	}
	q.frames, q.bytes, q.messages = nil, 0, 0
}

// lost counts the messages of a frame that was taken but not sent.
func (q *queue) lost(messages int) {
	q.mu.Lock()
	q.dropped.down += int64(messages)
	q.mu.Unlock()
}

func (q *queue) depth() (bytes, messages int, dropped dropCounts) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.messages, q.dropped
}
