package client

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// operation is one verb of one caller, over all its attempts. It is pooled;
// the verb's arguments live in it so that options do not allocate.
type operation struct {
	kind  protowire.Number
	write bool
	from  ReadFrom
	// namespace and key say which group is asked; key may be empty.
	namespace string
	key       string
	// requestID makes it one that may be sent again when its answer was lost.
	requestID string
	// ownID: requestID is this package's, and nobody else knows it.
	ownID bool
	// unsure: an attempt under the request id was sent and its answer lost.
	unsure bool
	// epoch is that of the topology that the last attempt went by.
	epoch uint64
	// deadline is monotonic, since the client's start. sweep leaves it to the
	// pipe's sweep to end what is late, for contexts without a deadline.
	deadline time.Duration
	sweep    bool
	// shared is where the end of the attempt is signaled when several are waited
	// for together; nil for the call's own channel.
	shared chan *call
	// call is the attempt's; nil after it was abandoned.
	call *call
	body []byte

	put   putCall
	del   deleteCall
	touch touchCall
	read  readCall
}

var operations = sync.Pool{New: func() any { return new(operation) }}

// maxPooledBody keeps large values from staying in the pool.
const maxPooledBody = 64 << 10

func newOperation(kind protowire.Number, write bool) *operation {
	o := operations.Get().(*operation) // the pool holds nothing else
	o.kind, o.write = kind, write
	return o
}

// release ends the use of the answer and of o.
func (o *operation) release() {
	o.dropAnswer()
	o.namespace, o.key, o.requestID, o.from, o.shared = "", "", "", readDefault, nil
	o.ownID, o.unsure = false, false
	o.put, o.del, o.touch, o.read = putCall{}, deleteCall{}, touchCall{}, readCall{}
	if cap(o.body) > maxPooledBody {
		o.body = nil
	}
	o.body = o.body[:0]
	if o.call != nil {
		o.call.body = nil
	}
	operations.Put(o)
}

// dropAnswer gives the frame of the last attempt's answer back.
func (o *operation) dropAnswer() {
	if o.call == nil {
		return
	}
	if o.call.frame != nil {
		o.call.frame.release()
	}
	o.call.frame, o.call.answer, o.call.err = nil, nil, nil
}

// call is one attempt on one pipe. From enqueue until done it belongs to the
// pipe, except that its caller may abandon it: it then never touches it again,
// nor the body, because the sender may still be copying it.
type call struct {
	write bool
	// atHome: it is a read that went to the home, and leaders can do it.
	atHome  bool
	body    []byte
	started time.Duration
	// expires is when the pipe's sweep ends the call; 0 leaves that to the
	// caller's context.
	expires time.Duration
	timeout time.Duration
	// done takes the call when it ended; own is that of calls waited for alone.
	done, own chan *call

	// Set before done is signaled.
	frame  *frame
	answer []byte
	err    error
	// torn means that the pipe may still read the body: the call was ended by
	// something else than an answer or the end of its stream.
	torn bool
}

// prepareCall returns the call of the next attempt, started now.
func (o *operation) prepareCall(now time.Duration) *call {
	if o.call == nil {
		o.call = new(call)
	}
	c := o.call
	if c.done = o.shared; c.done == nil {
		if c.own == nil {
			c.own = make(chan *call, 1)
		}
		c.done = c.own
	}
	c.write, c.body = o.write, o.body
	c.started, c.timeout = now, o.deadline-now
	if c.expires = 0; o.sweep {
		c.expires = o.deadline
	}
	c.torn = false
	return c
}

// lostError is the end of an attempt without an answer. sent says whether the
// server may have received it.
type lostError struct {
	sent  bool
	cause error
}

func (e *lostError) Error() string { return "no answer: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

// frame is one received message; the answers in it are decoded by their
// callers, and the last of them gives the buffer back.
type frame struct {
	buf  mem.Buffer
	refs atomic.Int32
}

var frames = sync.Pool{New: func() any { return new(frame) }}

func newFrame() *frame {
	f := frames.Get().(*frame) // the pool holds nothing else
	f.refs.Store(1)
	return f
}

func (f *frame) release() {
	if f.refs.Add(-1) > 0 {
		return
	}
	if f.buf != nil {
		f.buf.Free()
		f.buf = nil
	}
	frames.Put(f)
}
