package pipelink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/wirebuf"
)

// Stream is the server's end of a link, as a stream of gRPC.
type Stream struct {
	end
	ctx     context.Context
	cancel  context.CancelFunc
	stop    func() bool
	answers answers
}

var _ grpc.ServerStream = (*Stream)(nil)

// helloTimeout bounds the wait for a client's Hello.
const helloTimeout = 5 * time.Second

// Accept takes a connection whose protocol was named, and reads who the client is.
// The stream's context is below ctx, which ends the link, and has what gRPC's would
// have of the peer and its metadata. maxBytes bounds a frame. Close ends it.
func Accept(ctx context.Context, conn net.Conn, info credentials.AuthInfo, maxBytes int) (*Stream, error) {
	ctx, cancel := context.WithCancel(peer.NewContext(ctx, &peer.Peer{Addr: conn.RemoteAddr(), AuthInfo: info}))
	s := &Stream{end: newEnd(conn, maxBytes), cancel: cancel}
	s.stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends reads and writes
	md, err := s.hello()
	if err != nil {
		s.Close(err)
		return nil, err
	}
	s.ctx = metadata.NewIncomingContext(ctx, md)
	return s, nil
}

// hello reads what the client says of itself.
func (s *Stream) hello() (metadata.MD, error) {
	// Closing ends the read: gRPC, whose connection this was, may reset deadlines.
	limit := time.AfterFunc(helloTimeout, func() { _ = s.conn.Close() })
	defer limit.Stop()
	k, buf, err := Read(s.in, MaxHello)
	if err != nil {
		return nil, err
	}
	defer wirebuf.Pool.Put(buf)
	if k != Hello {
		return nil, fault.New(fault.InvalidArgument, "a link begins with a hello", "kind", fmt.Sprintf("%q", k))
	}
	return ParseMetadata(*buf)
}

// Greet tells the client that its stream is taken.
func (s *Stream) Greet() error { return gone(s.write(Append(nil, Hello, nil))) }

// Close tells the client why the stream has ended, nil for that it was done, and
// closes the connection. err has a gRPC status, or becomes one of code Unknown.
func (s *Stream) Close(err error) {
	defer s.cancel()
	defer func() { _ = s.conn.Close() }() // whatever it says, it is closed
	defer s.stop()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return
	}
	if body, err := proto.Marshal(grpcstatus.Convert(err).Proto()); err == nil {
		_ = s.write(Append(nil, Status, body)) // nobody is left to tell
	}
}

// gone is what the end of a connection means for the stream on it: nobody waits for
// answers any more, and nothing is wrong here.
func gone(err error) error {
	if err == nil || spoken(err) {
		return err
	}
	return fault.Wrap(fault.Canceled, err, "the connection of the link broke")
}

// Context implements grpc.ServerStream.
func (s *Stream) Context() context.Context { return s.ctx }

// SendMsg implements grpc.ServerStream.
func (s *Stream) SendMsg(m any) error {
	if q, ok := m.(*api.PipelineResponse); ok {
		return gone(s.respond(q))
	}
	msg, ok := m.(proto.Message)
	if !ok {
		return fault.New(fault.Internal, "link cannot send", "type", fmt.Sprintf("%T", m))
	}
	return gone(s.send(msg))
}

// RecvMsg implements grpc.ServerStream. The end of a connection between two frames
// is that of the client's part; one in the middle ends the stream.
func (s *Stream) RecvMsg(m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return fault.New(fault.Internal, "link cannot receive", "type", fmt.Sprintf("%T", m))
	}
	err := s.receive(msg)
	if errors.Is(err, io.EOF) || errors.Is(err, errDone) {
		return io.EOF
	}
	if err = gone(err); fault.CodeOf(err) == fault.Canceled {
		s.cancel()
	}
	return err
}

// SetHeader, SendHeader and SetTrailer implement grpc.ServerStream; a link has
// none.
func (s *Stream) SetHeader(metadata.MD) error  { return nil }
func (s *Stream) SendHeader(metadata.MD) error { return nil }
func (s *Stream) SetTrailer(metadata.MD)       {}
