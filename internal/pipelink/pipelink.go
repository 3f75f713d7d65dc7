// Package pipelink is the form of a link: a connection of a gRPC port that carries
// one stream and nothing else. Between the SDK and nodes that is Pipeline, between
// nodes Forward (internal/transport); what follows says it of the first.
//
// On HTTP/2 a frame of operations costs several hand-overs between goroutines and
// system calls at both ends; where frames are small, that is most of what an
// operation costs. A link needs one write and one read a frame. What a stream says
// is the same, and so are authentication, limits and errors.
//
// The client names the protocol, with TLS by ALPN, else by Magic, which no HTTP/2
// preface begins with. Then both sides send frames: a byte for the kind, four bytes
// of length (big endian), the body. The first of the client is a Hello with what
// gRPC would have as metadata; the server answers it with an empty Hello, or with a
// Status. Frames of operations and answers follow (PipelineRequest,
// PipelineResponse). The server's last frame is a Status, encoded as
// google.rpc.Status: why it ended, code 0 where the client was done. A server that
// does not know the protocol ends the connection, and the client uses gRPC.
package pipelink

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"kvstore/internal/fault"
	"kvstore/internal/tlsconf"
	"kvstore/internal/wirebuf"
)

const (
	// Protocol names a link in ALPN.
	Protocol = tlsconf.PipelineProtocol
	// Magic begins a link without TLS.
	Magic = Protocol + "\n"
	// HeadBytes come before the body of each frame.
	HeadBytes = 5
	// BufferBytes is what either side reads ahead.
	BufferBytes = 64 << 10
	// WriteTimeout ends a link whose other side takes nothing for so long.
	WriteTimeout = 30 * time.Second
	// MaxHello bounds the first frame, and a Status.
	MaxHello = 64 << 10
)

// Kind is what a frame is.
type Kind byte

// The kinds of frames.
const (
	Hello  Kind = 'H'
	Frame  Kind = 'F'
	Status Kind = 'S'
)

// PutHead writes the head of a frame whose whole encoding is b, head included.
func PutHead(b []byte, k Kind) {
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-HeadBytes))
}

// Append appends a whole frame.
func Append(dst []byte, k Kind, body []byte) []byte {
	dst = append(dst, byte(k))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...)
}

// Read reads a frame of at most max bytes into a buffer of wirebuf.Pool, which is
// the caller's. io.EOF means that the other side ended between two frames.
func Read(r *bufio.Reader, max int) (Kind, *[]byte, error) {
	k, n, err := readHead(r, max)
	if err != nil {
		return 0, nil, err
	}
	buf, err := readBody(r, n)
	return k, buf, err
}

// readHead reads what comes before the n bytes of a body.
func readHead(r *bufio.Reader, max int) (k Kind, n int, err error) {
	head, err := r.Peek(HeadBytes)
	if err != nil {
		if len(head) > 0 {
			err = within(err)
		}
		return 0, 0, err
	}
	k, n = Kind(head[0]), int(binary.BigEndian.Uint32(head[1:]))
	switch {
	case k != Hello && k != Frame && k != Status:
		return 0, 0, fault.New(fault.InvalidArgument, "unknown kind of frame", "kind", head[0])
	case n > max:
		return 0, 0, tooLarge(max, n)
	}
	_, _ = r.Discard(HeadBytes) // they were peeked
	return k, n, nil
}

func readBody(r *bufio.Reader, n int) (*[]byte, error) {
	buf := wirebuf.Pool.Get(n)
	if _, err := io.ReadFull(r, *buf); err != nil {
		wirebuf.Pool.Put(buf)
		return nil, within(err)
	}
	return buf, nil
}

func tooLarge(limit, actual int) error {
	return fault.New(fault.MessageTooLarge, "frame is too large", "limit_bytes", limit, "actual_bytes", actual)
}

// within is for an end in the middle of a frame.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendMetadata encodes the body of a client's Hello: names and values in turn.
func AppendMetadata(dst []byte, md metadata.MD) []byte {
	for name, values := range md {
		for _, v := range values {
			dst = protowire.AppendString(protowire.AppendString(dst, name), v)
		}
	}
	return dst
}

// ParseMetadata is the inverse of AppendMetadata.
func ParseMetadata(b []byte) (metadata.MD, error) {
	md := metadata.MD{}
	for len(b) > 0 {
		var parts [2]string
		for i := range parts {
			s, n := protowire.ConsumeString(b)
			if n < 0 {
				return nil, fault.New(fault.InvalidArgument, "metadata of a link is malformed")
			}
			parts[i], b = s, b[n:]
		}
		md.Append(parts[0], parts[1])
	}
	return md, nil
}
