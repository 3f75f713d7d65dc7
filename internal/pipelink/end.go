package pipelink

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/wirebuf"
)

// end is one end of a link. One goroutine at a time may write, and one read.
type end struct {
	conn     net.Conn
	in       *bufio.Reader
	maxBytes int       // of a frame
	armed    time.Time // when the deadline of writes was set
}

func newEnd(conn net.Conn, maxBytes int) end {
	return end{conn: conn, in: bufio.NewReaderSize(conn, BufferBytes), maxBytes: maxBytes}
}

func (e *end) write(b []byte) error {
	if now := time.Now(); now.Sub(e.armed) >= time.Second {
		e.armed = now
		_ = e.conn.SetWriteDeadline(now.Add(WriteTimeout)) // fails only when closed, as the write then does
	}
	_, err := e.conn.Write(b)
	return err
}

// send writes a message as one frame.
func (e *end) send(msg proto.Message) error {
	size := proto.Size(msg)
	if size > e.maxBytes {
		return tooLarge(e.maxBytes, size)
	}
	buf := wirebuf.Pool.Get(HeadBytes + size)
	defer wirebuf.Pool.Put(buf)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:HeadBytes], msg)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "frame cannot be encoded", "bytes", size)
	}
	PutHead(b, Frame)
	return e.write(b)
}

// receive decodes the next frame into msg, which keeps nothing of the buffers here.
// A Status is the error that it tells, or errDone; io.EOF is a connection that ended
// without one.
func (e *end) receive(msg proto.Message) error {
	k, n, err := readHead(e.in, e.maxBytes)
	if err != nil {
		return err
	}
	if n > e.in.Size() {
		buf, err := readBody(e.in, n)
		if err != nil {
			return err
		}
		defer wirebuf.Pool.Put(buf)
		return decode(k, *buf, msg)
	}
	body, err := e.in.Peek(n) // decoded where it lies
	if err != nil {
		return within(err)
	}
	err = decode(k, body, msg)
	_, _ = e.in.Discard(n) // they were peeked
	return err
}

// errDone is the Status of code 0.
var errDone = errors.New("the other side is done")

func decode(k Kind, body []byte, msg proto.Message) error {
	switch k { //nolint:exhaustive // a Hello comes first, and once
	case Frame:
		if err := unmarshal(body, msg); err != nil {
			return fault.Wrap(fault.InvalidArgument, err, "frame does not decode", "bytes", len(body))
		}
		return nil
	case Status:
		if err := Ended(body); !errors.Is(err, io.EOF) {
			return err
		}
		return errDone
	}
	return fault.New(fault.InvalidArgument, "frame is not one of operations", "kind", fmt.Sprintf("%q", k))
}

// spoken tells what one of the sides says from the error of a connection.
func spoken(err error) bool {
	var f *fault.Error
	_, ok := grpcstatus.FromError(err)
	return ok || errors.As(err, &f)
}
