package transport

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// deadAfter is how long a connection may go without any sign of its peer.
	deadAfter = 2 * time.Second
	// probeEvery is the interval of probes on an idle connection.
	probeEvery = time.Second
	// minClientPing is the shortest interval at which clients of this package
	// ping; the server must allow it.
	minClientPing = 10 * time.Second

	streamWindow = 8 << 20
	connWindow   = 16 << 20
	ioBuffer     = 128 << 10

	dialTimeout = 2 * time.Second
)

// keepAlive finds a dead peer on an idle connection.
var keepAlive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     probeEvery,
	Interval: probeEvery,
	Count:    int(deadAfter / probeEvery),
}

// ServerOptions are what the gRPC server of the peer port needs for this
// package's streams: message sizes, windows and keepalive. Without them
// clients are cut off for pinging, and large frames are refused. Nodes that do
// not belong to the cluster any more are refused by its interceptors. Stop ends
// the contexts of handlers and waits for them: what they read may be closed then.
func (t *Transport) ServerOptions() []grpc.ServerOption {
	return append(t.gate(),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(ioBuffer),
		grpc.WriteBufferSize(ioBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: probeEvery, Timeout: deadAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
}

// dial makes a connection to addr that connects when first used, goes idle
// after idle without use (0: never) and reconnects by itself.
func (t *Transport) dial(addr string, idle time.Duration) (*grpc.ClientConn, error) {
	creds := t.o.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	// Short pauses, since nothing may end them early: ResetConnectBackoff of
	// gRPC reads a map while its balancer writes it.
	reconnect := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: min(t.o.MaxRedial, 200*time.Millisecond)}
	return grpc.NewClient("passthrough:///"+addr, append(t.named(),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dialTCP),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: dialTimeout}),
		// On Linux the timeout is also the connection's TCP_USER_TIMEOUT.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: minClientPing, Timeout: deadAfter, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithIdleTimeout(idle),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)...)
}

// dialTCP resolves addr anew each time, so a node may change its address
// behind a name.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", addr)
}
