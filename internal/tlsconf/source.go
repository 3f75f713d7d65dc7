package tlsconf

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// Options of a Source.
type Options struct {
	Logger *slog.Logger
	// Poll is how often the files are read; 2 s. They are small.
	Poll time.Duration
	// Now tells the time that certificates are checked at; the wall clock by
	// default.
	Now func() time.Time
	// OnReload is told about every attempt to take changed files.
	OnReload func(error)
}

// Source holds the current generation of a node's TLS files. All its
// configurations follow it: a new connection uses the newest generation, an
// open one keeps what it began with.
type Source struct {
	config  Config
	o       Options
	current atomic.Pointer[material]

	reloads, failures atomic.Int64

	mu sync.Mutex
	// seen is what the last poll read; files are taken when two polls agree,
	// so that a rotation is not read half-way. refused is what was last found
	// broken. mu must be held.
	seen, refused *files
	readError     string

	stop context.CancelFunc
	done chan struct{}
}

// Open validates the section and loads its files. It starts nothing.
func Open(c Config, o Options) (*Source, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return nil, fmt.Errorf("tls: no certificate is configured")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Poll <= 0 {
		o.Poll = 2 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Source{config: c.withDefaults(), o: o}
	f, err := readFiles(s.config)
	if err != nil {
		return nil, err
	}
	m, err := load(s.config, f, o.Now())
	if err != nil {
		return nil, err
	}
	s.current.Store(m)
	return s, nil
}

// Start begins to watch the files until ctx ends or Close.
func (s *Source) Start(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	s.done = make(chan struct{})
	go s.watch(ctx)
}

// Close stops watching. The configurations go on working as they are.
func (s *Source) Close() error {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
	return nil
}

// Server is for listeners of clients; it asks for certificates as client_auth
// says. It offers h2 and http/1.1.
func (s *Source) Server() *tls.Config {
	return s.following(func(m *material) *tls.Config { return m.server })
}

// PeerServer is for the listener of nodes: whatever client_auth says, a node
// shows a certificate of the CA.
func (s *Source) PeerServer() *tls.Config {
	return s.following(func(m *material) *tls.Config { return m.peerServer })
}

func (s *Source) following(pick func(*material) *tls.Config) *tls.Config {
	c := pick(s.current.Load()).Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return pick(s.current.Load()), nil
	}
	return c
}

// Client returns the configuration for one outgoing connection made now. It
// does not follow later generations; ask again for each connection, or use
// ClientCredentials.
func (s *Source) Client() *tls.Config { return s.current.Load().client.Clone() }

// ClientCredentials secure outgoing gRPC connections, each with the generation
// of its handshake.
func (s *Source) ClientCredentials() credentials.TransportCredentials {
	return &clientCredentials{TransportCredentials: credentials.NewTLS(s.Client()), source: s}
}

// clientCredentials makes the credentials of each handshake anew.
type clientCredentials struct {
	credentials.TransportCredentials
	source *Source
}

func (c *clientCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.source.Client()).ClientHandshake(ctx, authority, conn)
}

func (c *clientCredentials) Clone() credentials.TransportCredentials {
	return &clientCredentials{TransportCredentials: c.TransportCredentials.Clone(), source: c.source}
}

// ServerCredentials secure a gRPC server that owns its listener: of nodes when
// peer, else of clients.
func (s *Source) ServerCredentials(peer bool) credentials.TransportCredentials {
	if peer {
		return credentials.NewTLS(s.PeerServer())
	}
	return credentials.NewTLS(s.Server())
}
