package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"

	"kvstore/internal/env/system"
	"kvstore/internal/wirebuf"
)

// Client is a connection to a cluster. It is safe for concurrent use, and one
// per program is enough: many goroutines on one Client share frames.
type Client struct {
	cfg      Config
	start    time.Time
	seeds    []*node
	topo     atomic.Pointer[topology]
	home     home
	refresh  chan struct{}
	counters counters

	ctx    context.Context // the life of the background goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	// nodes holds the seeds and the topology's nodes, by address.
	nodes map[string]*node
	// retired nodes left the topology and still owe answers.
	retired []*node
}

// New connects to any of the endpoints and learns the topology. It tries until
// one answers, ctx ends or, when ctx has no deadline, Config.Timeout passed.
// ctx bounds New only, not the Client.
func New(ctx context.Context, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, start: time.Now(), refresh: make(chan struct{}, 1), nodes: make(map[string]*node)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.topo.Store(&topology{limits: defaultLimits, replaced: make(chan struct{})})
	if err := c.connect(ctx); err != nil {
		_ = c.Close() // always nil
		return nil, err
	}
	c.tendHome(c.now())
	c.spawn(c.watchTopology)
	c.spawn(c.watchHealth)
	return c, nil
}

func (c *Client) connect(ctx context.Context) error {
	for _, e := range c.cfg.Endpoints {
		addr, err := parseEndpoint(e, c.cfg.TLS != nil)
		if err != nil {
			return err
		}
		if c.nodes[addr] != nil {
			continue
		}
		n, err := newNode(c, addr)
		if err != nil {
			return err
		}
		c.nodes[addr] = n
		c.seeds = append(c.seeds, n)
	}
	return c.firstTopology(ctx)
}

func (c *Client) firstTopology(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	var said error // the last that is not only the end of the time
	for attempt := 0; ; attempt++ {
		err := c.loadTopology(ctx)
		if err == nil || permanent(err) {
			return err
		}
		if said == nil || CodeOf(err) != CodeDeadlineExceeded {
			said = err
		}
		if ctxErr := system.Pause(ctx, jitter(c.cfg.RetryBase, c.cfg.RetryMax, attempt)); ctxErr != nil {
			return wrapError(CodeUnavailable, said, "no endpoint answered", "endpoints", c.cfg.Endpoints)
		}
	}
}

// permanent says whether trying to connect again is pointless.
func permanent(err error) bool {
	switch CodeOf(err) {
	case CodeUnauthenticated, CodePermissionDenied, CodeUnsupported, CodeInvalidArgument:
		return true
	default:
		return false
	}
}

// spawn runs f on a goroutine that Close waits for, false after Close.
func (c *Client) spawn(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(func() { f(c.ctx) })
	return true
}

// Close ends the Client: operations in flight fail with ErrClosed, writes that
// were sent with ErrUnknownOutcome. It waits for its goroutines; a second call
// waits too. It returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	for _, n := range c.allNodes() {
		n.close()
	}
	return nil
}

func (c *Client) isClosed() bool {
	return c.ctx.Err() != nil
}

func errClientClosed() *Error { return newError(CodeClosed, "the client was closed") }

// now is monotonic time since the client's start.
func (c *Client) now() time.Duration { return time.Since(c.start) }

// Windows are fixed, because estimating them costs pings; they are large
// enough for a frame in each direction at once.
const (
	streamWindowBytes = 4 << 20
	connWindowBytes   = 16 << 20
	connBufferBytes   = 64 << 10
)

func (c *Client) dial(addr string, connect func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if c.cfg.TLS != nil {
		transport = credentials.NewTLS(c.cfg.TLS.Clone())
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent(c.cfg.UserAgent),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithReadBufferSize(connBufferBytes),
		grpc.WithWriteBufferSize(connBufferBytes),
		grpc.WithContextDialer(connect),
		experimental.WithBufferPool(wirebuf.Pool),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: probeBackoffFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMost},
			MinConnectTimeout: c.cfg.ConnectTimeout,
		}),
	}
	if c.cfg.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{token: c.cfg.Token, plaintext: c.cfg.PlaintextToken}))
	}
	return grpc.NewClient("passthrough:///"+addr, options...)
}

// callOptions are the limits of the server's messages.
func (c *Client) callOptions() []grpc.CallOption {
	n := c.topology().limits.messageBytes
	return []grpc.CallOption{grpc.MaxCallRecvMsgSize(n), grpc.MaxCallSendMsgSize(n)}
}

// bearer puts the token on every request.
type bearer struct {
	token     string
	plaintext bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.plaintext }

// Stats counts what a Client did since it was made.
type Stats struct {
	// Operations counts attempts that were handed to a connection, Frames the
	// messages they went out in.
	Operations uint64
	Frames     uint64
	Retries    uint64
	// UnknownOutcomes counts writes whose answer was lost.
	UnknownOutcomes uint64
}

type counters struct {
	operations atomic.Uint64
	frames     atomic.Uint64
	retries    atomic.Uint64
	unknown    atomic.Uint64
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	return Stats{
		Operations: c.counters.operations.Load(), Frames: c.counters.frames.Load(),
		Retries: c.counters.retries.Load(), UnknownOutcomes: c.counters.unknown.Load(),
	}
}
