package pipelink

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/wirebuf"
)

// ErrNoLinks means that there is somebody, who takes no links; nothing was sent.
var ErrNoLinks = errors.New("the other side takes no links")

// Caller is the client's end of a link that carries messages. One goroutine at a
// time may send, and one receive.
type Caller struct{ end }

// Open says on a connection whose protocol was named who the client is, with what
// gRPC would have as metadata, and waits for the server's word; closing conn, which
// stays the caller's, ends that, and the link. maxBytes bounds a frame. The error is
// ErrNoLinks, or a gRPC status: what the server says, or Unavailable.
func Open(conn net.Conn, md metadata.MD, maxBytes int) (*Caller, error) {
	c := &Caller{newEnd(conn, maxBytes)}
	if err := c.write(Append(nil, Hello, AppendMetadata(nil, md))); err != nil {
		return nil, NotTaken(err)
	}
	k, buf, err := Read(c.in, MaxHello)
	if err != nil {
		return nil, NotTaken(err)
	}
	defer wirebuf.Pool.Put(buf)
	switch k { //nolint:exhaustive // no frame comes before
	case Hello:
		return c, nil
	case Status:
		return nil, refused(*buf)
	}
	return nil, ErrNoLinks
}

// refused is what the Status says that came instead of a Hello.
func refused(body []byte) error {
	if err := Ended(body); !errors.Is(err, io.EOF) {
		return err
	}
	return grpcstatus.Error(codes.Unavailable, "the link has ended before it began")
}

// Send writes one frame. After an error the link must be closed; where the server has
// ended it, Receive tells why.
func (c *Caller) Send(msg proto.Message) error { return lost(c.send(msg)) }

// Receive reads one frame into msg. The error is io.EOF when the server is done, a
// gRPC status, Unavailable for a broken connection, or a fault for what is no frame.
func (c *Caller) Receive(msg proto.Message) error {
	err := c.receive(msg)
	if errors.Is(err, errDone) {
		return io.EOF
	}
	return lost(err)
}

// lost is the error of a connection as a gRPC status.
func lost(err error) error {
	if err == nil || spoken(err) {
		return err
	}
	return grpcstatus.Error(codes.Unavailable, "the connection of the link broke: "+err.Error())
}

// NotTaken tells who speaks something else from who is not there, by the error of
// the first words on a connection: the former answers in its own way, or closes.
func NotTaken(err error) error {
	var e net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Timeout(), errors.Is(err, net.ErrClosed):
		return grpcstatus.Error(codes.Unavailable, err.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ErrNoLinks
	case e != nil:
		return grpcstatus.Error(codes.Unavailable, err.Error())
	}
	return ErrNoLinks
}

// OtherProtocol reports whether a TLS handshake failed since the server does not know
// the protocol that was named.
func OtherProtocol(err error) bool {
	// crypto/tls has no exported error for the alert no_application_protocol.
	return err != nil && strings.Contains(err.Error(), "no application protocol")
}

// Ended is the error that a Status tells, io.EOF where the server is done.
func Ended(body []byte) error {
	st := &spb.Status{}
	if err := proto.Unmarshal(body, st); err != nil {
		return grpcstatus.Error(codes.Internal, "the status of a link does not decode")
	}
	if err := grpcstatus.ErrorProto(st); err != nil {
		return err
	}
	return io.EOF
}
