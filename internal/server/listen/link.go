package listen

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"kvstore/internal/fault"
	"kvstore/internal/pipelink"
	"kvstore/internal/tlsconf"
)

// keepAlive finds clients that vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}

// ServeLink serves a link (package pipelink); it owns conn and returns when the
// link has ended, which ctx makes it.
type ServeLink func(ctx context.Context, conn net.Conn, info credentials.AuthInfo, maxBytes int)

// WithLinks returns credentials that take links out of a gRPC server's hands and
// leave other connections to inner; nil is plaintext. Links end, and are waited for,
// in end.
func WithLinks(inner credentials.TransportCredentials, serve ServeLink) (creds credentials.TransportCredentials, end func()) {
	l := newLinks(inner, serve)
	return l, l.close
}

// links tell links from gRPC in the handshake of a connection, which gRPC runs on
// a goroutine of its own, and serve them. They are the server's until stop.
type links struct {
	credentials.TransportCredentials
	serve ServeLink
	ctx   context.Context
	stop  context.CancelFunc
	mu    sync.Mutex
	ended bool // guarded by mu
	wg    *sync.WaitGroup
}

// newLinks returns the credentials of a server; inner nil is plaintext.
func newLinks(inner credentials.TransportCredentials, serve ServeLink) *links {
	if inner == nil {
		inner = insecure.NewCredentials()
	}
	l := &links{TransportCredentials: inner, serve: serve, wg: new(sync.WaitGroup)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// finish waits for the links, which a drained service ends, until ctx ends them.
func (l *links) finish(ctx context.Context) {
	if l == nil {
		return
	}
	end := context.AfterFunc(ctx, l.stop)
	defer end()
	l.refuse()
	l.wg.Wait()
}

// close ends all links and waits for them; nil has none.
func (l *links) close() {
	if l == nil {
		return
	}
	l.refuse()
	l.stop()
	l.wg.Wait()
}

func (l *links) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

func (l *links) hold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.wg.Add(1)
	return true
}

// Clone implements credentials.TransportCredentials. gRPC clones the credentials
// of servers nowhere; a clone serves no links.
func (l *links) Clone() credentials.TransportCredentials { return l.TransportCredentials.Clone() }

// ServerHandshake implements credentials.TransportCredentials. The caller closes
// raw after any error but ErrConnDispatched.
func (l *links) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := l.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	conn, protocol, err := tlsconf.ProtocolOf(conn, info, tlsconf.PipelineProtocol) // within the deadline that gRPC has set
	if err != nil || protocol == "" {
		return conn, info, err
	}
	if !l.hold() {
		return nil, nil, fault.New(fault.Unavailable, "this node is stopping")
	}
	if tcp, ok := bare(raw).(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive) // fails only when closed, as the read then does
	}
	conn = cheaper(raw, conn)
	go func() {
		defer l.wg.Done()
		l.serve(l.ctx, conn, info, MaxMessageBytes)
	}()
	return nil, nil, credentials.ErrConnDispatched
}

// bare is the socket of a connection that is counted.
func bare(c net.Conn) net.Conn {
	if n, ok := c.(*counted); ok {
		return n.Conn
	}
	return c
}

// cheaper returns conn, which is raw or TLS over it, with cheaper reads and writes of
// the socket. Nobody may use either meanwhile; the socket of a link has one reader and
// one writer at a time from then on, since its stream has, and TLS locks.
func cheaper(raw, conn net.Conn) net.Conn {
	if n, ok := raw.(*counted); ok {
		n.Conn = pipelink.Direct(n.Conn)
		return conn
	}
	return pipelink.Direct(conn)
}
