package router

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// SystemIdentity marks operations the cluster itself makes. It may write to
// the reserved namespace and to namespaces that are being deleted. No front
// end may admit a caller under this name.
const SystemIdentity = "_system"

// Limits and defaults of a router; Options overrides them.
const (
	DefaultTimeout       = 10 * time.Second
	MaxTimeout           = 60 * time.Second
	DefaultMaxInflight   = 1 << 16
	DefaultPeerInflight  = 1 << 13
	DefaultPeerBytes     = 64 << 20
	DefaultForwardBytes  = 4 << 20
	GiveBackAfter        = time.Second
	CutOffAfter          = 2 * time.Second
	CutOffRetry          = time.Second
	DefaultReadAttempt   = 2 * time.Second
	DefaultBackoffFirst  = 10 * time.Millisecond
	DefaultBackoffMax    = 500 * time.Millisecond
	DefaultBreakerTrips  = 3
	DefaultBreakerMax    = 5 * time.Second
	DefaultPageBytes     = 4 << 20
	DefaultListLimit     = 1000
	MaxListLimit         = 10_000
	MaxMessageBytes      = 20 << 20
	MaxBatchBytes        = 16<<20 + 1<<20
	MaxBatchItems        = 100_000
	MaxRecordExtrasBytes = 64 << 10
)

// Options builds a Router. Node, Host, Peers, Directory, Clock and Rand are
// required; the rest has defaults.
type Options struct {
	Node     keyspace.NodeID
	NodeName string
	Host     Host
	// Slots serves the moves of slots; nil: this node takes part in none.
	Slots     SlotHost
	Peers     Peers
	Directory Directory
	Clock     env.Clock
	Rand      env.Rand
	Logger    *slog.Logger

	// Info supplies what only the node knows for Status; it may be nil.
	Info func() NodeReport
	// Healthy tells whether a node answers; nil means that the router's own
	// experience decides.
	Healthy func(keyspace.NodeID) bool
	// Unheard says for how long no frame came from a node; nil: not known.
	Unheard func(keyspace.NodeID) time.Duration
	// Detached hears of keys that are not attached to a lease any more; it must not
	// block, and may be nil.
	Detached func(namespace, key, lease string)
	// Heard tells what gossip says of a node, for those who ask; it may be nil.
	Heard func(keyspace.NodeID) string

	// MaxInflight bounds the operations taken and not answered.
	MaxInflight int
	// PeerInflight and PeerBytes bound what waits for one peer.
	PeerInflight int
	PeerBytes    int64
	// ForwardBytes bounds a forwarded frame, unless one operation is larger.
	ForwardBytes int
	// ReadAttempt bounds one attempt of a read before another replica is asked.
	ReadAttempt time.Duration
	// PageBytes bounds a page of a list.
	PageBytes int
}

func (o *Options) setDefaults() error {
	if o.Node == "" || o.Host == nil || o.Peers == nil || o.Directory == nil || o.Clock == nil || o.Rand == nil {
		return errors.New("router: Node, Host, Peers, Directory, Clock and Rand are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	defaultTo(&o.MaxInflight, DefaultMaxInflight)
	defaultTo(&o.PeerInflight, DefaultPeerInflight)
	defaultTo(&o.PeerBytes, DefaultPeerBytes)
	defaultTo(&o.ForwardBytes, DefaultForwardBytes)
	defaultTo(&o.ReadAttempt, DefaultReadAttempt)
	defaultTo(&o.PageBytes, DefaultPageBytes)
	return nil
}

func defaultTo[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Router is safe for concurrent use.
type Router struct {
	o     Options
	admin atomic.Pointer[Admin]
	// recovery is nil until the node has started.
	recovery atomic.Pointer[Recovery]
	hints    hints

	inflight atomic.Int64
	turn     atomic.Uint32 // spreads attempts over members
	// refreshedAt is when the directory was last read because of a misrouted part,
	// on env.Clock.Mono.
	refreshedAt atomic.Int64

	links   sync.Map // keyspace.NodeID -> *link
	clocks  clocks
	txns    transactions
	drivers drivers

	mu     sync.Mutex
	closed bool // guarded by mu

	// wg counts frames, links and the sweeper.
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
}

// New returns a router that serves at once; Start is needed for forwarding
// with deadlines.
func New(o Options) (*Router, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	r := &Router{o: o}
	r.clocks.r = r
	r.txns.init(r)
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// SetAdmin names the implementation of the namespace calls. It is called once,
// before the first request: package meta needs the router to be built first.
func (r *Router) SetAdmin(a Admin) { r.admin.Store(&a) }

// Start begins to watch the deadlines of forwarded operations, and to look after
// transactions.
func (r *Router) Start(context.Context) error {
	if !r.hold() {
		return errClosed()
	}
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		r.sweep()
	}()
	go func() {
		defer r.wg.Done()
		r.tend()
	}()
	return nil
}

// Close finishes transactions that were answered, for a bounded time, ends
// forwarding and waits until everything taken was answered. The
// host must still answer: it is closed after the router.
func (r *Router) Close() error {
	r.txns.drain()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.wg.Wait()
	r.drivers.close()
	return nil
}

// hold adds one to wg unless the router is closed.
func (r *Router) hold() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Add(1)
	return true
}

func errClosed() error { return fault.New(fault.Unavailable, "node is stopping") }
