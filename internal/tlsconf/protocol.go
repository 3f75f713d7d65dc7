package tlsconf

import (
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc/credentials"

	"kvstore/internal/fault"
)

// ProtocolOf reads what the dialer of a connection named: one of known, with TLS by
// ALPN, else by a first line that no HTTP/2 preface begins with; "" is gRPC. The
// first letters of known are the same. The connection it returns has all bytes that
// belong to the protocol.
func ProtocolOf(conn net.Conn, info credentials.AuthInfo, known ...string) (_ net.Conn, protocol string, err error) {
	if secure, ok := info.(credentials.TLSInfo); ok {
		for _, p := range known {
			if p == secure.State.NegotiatedProtocol {
				return conn, p, nil
			}
		}
		return conn, "", nil
	}
	var named []byte
	for {
		var next [1]byte
		if _, err := io.ReadFull(conn, next[:]); err != nil {
			return nil, "", fmt.Errorf("reading the name of a protocol: %w", err)
		}
		named = append(named, next[0])
		possible := false
		for _, p := range known {
			line := p + "\n"
			if string(named) == line {
				return conn, p, nil
			}
			possible = possible || len(named) < len(line) && line[:len(named)] == string(named)
		}
		switch {
		case possible:
		case len(named) == 1:
			return &begun{Conn: conn, head: named}, "", nil
		default:
			return nil, "", fault.New(fault.InvalidArgument, "connection names no protocol of this port", "actual", fmt.Sprintf("%q", named))
		}
	}
}

// begun is a connection of which head was read.
type begun struct {
	net.Conn
	head []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.head) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.head)
	b.head = b.head[n:]
	return n, nil
}
