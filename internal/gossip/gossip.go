package gossip

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/zeebo/xxh3"

	"kvstore/internal/fault"
)

// Gossip is one node's part of the gossip of its cluster.
type Gossip struct {
	o       Options
	drops   drops
	keys    *keys // nil without a key file
	wire    *wire
	judge   *judge
	started int64 // of this life, as its Meta says
	cluster uint64
	list    *memberlist.Memberlist
	view    *view

	table table
	news  news
	wake  chan struct{}

	running atomic.Bool // list and view are there
	leaving atomic.Bool
	life    sync.Mutex // Start, Leave and Close, one at a time
	begun   bool       // guarded by life
	closed  bool       // guarded by life
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// New checks the options and reads the key file; it starts nothing. After a nil
// error Close is needed, which closes Options.Packets.
func New(o Options) (*Gossip, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gossip{o: o, wake: make(chan struct{}, 1)}
	if o.KeyFile != "" {
		if g.keys, err = openKeys(o.KeyFile, o.Logger); err != nil {
			return nil, err
		}
	}
	g.wire = newWire(&g.o, label(o.Cluster), &g.drops)
	g.wire.sealed = g.keys != nil
	g.judge = &judge{g: g, names: map[string]bool{}}
	g.table.init()
	return g, nil
}

// label fits a cluster's name into memberlist's bound.
func label(cluster string) string {
	if len(cluster) <= memberlist.LabelMaxSize {
		return cluster
	}
	sum := sha256.Sum256([]byte(cluster))
	return hex.EncodeToString(sum[:])
}

// Start joins the gossip of the cluster with this id and says m there. It
// returns at once; joining goes on until it succeeds. Everything ends with
// Close. The error says that m cannot be said, or that Start came twice.
func (g *Gossip) Start(clusterID string, m Meta) error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed || g.begun {
		return fault.New(fault.FailedPrecondition, "gossip is started twice, or after it was closed")
	}
	g.cluster, g.started = xxh3.HashString(clusterID), m.Started
	said, err := m.encode(g.cluster)
	if err != nil {
		return err
	}
	g.news.begin(m)
	g.judge.announced.Store(&said)
	if g.keys == nil {
		g.o.Logger.Info("gossip is not encrypted; gossip.key_file would name its keys")
	}
	if err := g.create(); err != nil {
		return err
	}
	g.begun = true
	g.running.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.wg.Go(func() { g.run(ctx) })
	g.wg.Go(func() { g.rejoin(ctx) })
	if g.keys != nil {
		g.wg.Go(func() { g.keys.watch(ctx, g.o.KeyPoll) })
	}
	return nil
}

// create makes the list and the view of it.
func (g *Gossip) create() (err error) {
	c := g.listConfig()
	g.wire.start()
	if g.list, err = memberlist.Create(c); err != nil {
		return fmt.Errorf("gossip: %w", errors.Join(err, g.wire.Shutdown()))
	}
	if g.view, err = newView(string(g.o.Node), c, g.wire.inside); err != nil {
		return fmt.Errorf("gossip: %w", errors.Join(err, g.list.Shutdown()))
	}
	return nil
}

// scaled is a setting for an interval of one second at another one. The product of
// two durations does not fit into one.
func scaled(d, interval time.Duration) time.Duration {
	return max(time.Duration(float64(d)*interval.Seconds()), time.Millisecond)
}

// listConfig scales memberlist's settings for a LAN by the interval.
func (g *Gossip) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	scale := func(d time.Duration) time.Duration { return scaled(d, g.o.Interval) }
	c.ProbeInterval, c.ProbeTimeout = scale(c.ProbeInterval), scale(c.ProbeTimeout)
	c.GossipInterval, c.PushPullInterval = scale(c.GossipInterval), scale(c.PushPullInterval)
	c.GossipToTheDeadTime = scale(c.GossipToTheDeadTime)
	c.Name, c.Label, c.Transport = string(g.o.Node), g.wire.label, g.wire
	c.ProtocolVersion = protocolVersion
	c.TCPTimeout, c.UDPBufferSize = streamTimeout, sendBytes
	c.RequireNodeNames = true
	c.Delegate, c.Alive, c.Events = g.judge, g.judge, g.judge
	c.Logger = newLogs(g.o.Logger, &g.drops)
	if g.keys != nil {
		c.Keyring = g.keys.ring
	}
	return c
}

// Take takes an incoming stream (transport.Transport.TakeGossip). Before Start
// it is closed.
func (g *Gossip) Take(conn net.Conn) {
	if !g.running.Load() {
		_ = conn.Close()
		return
	}
	g.wire.take(conn)
}

// look asks for a look at the list soon.
func (g *Gossip) look() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// run looks, tells and announces until ctx ends.
func (g *Gossip) run(ctx context.Context) {
	ticker := time.NewTicker(g.o.Interval)
	defer ticker.Stop()
	for {
		moment := g.wire.places.now()
		if nodes, ok := g.view.look(); ok {
			g.seen(nodes, moment)
		}
		g.announce()
		// Many things happening at once are one look.
		select {
		case <-ctx.Done():
			return
		case <-time.After(g.o.Interval / 20):
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-g.wake:
		}
	}
}

// Leave tells the others that this node stops on purpose. It waits until that
// was sent, or until ctx ends; without a deadline at most a second. Gossip goes
// on being answered until Close.
func (g *Gossip) Leave(ctx context.Context) error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed || !g.running.Load() {
		return nil
	}
	wait := time.Second
	if end, ok := ctx.Deadline(); ok {
		wait = max(time.Until(end), time.Nanosecond)
	}
	g.leaving.Store(true)
	if err := g.list.Leave(wait); err != nil {
		return fault.Wrap(fault.DeadlineExceeded, err, "leaving the gossip")
	}
	return nil
}

// Close ends everything. To the others this node fails, unless it left.
func (g *Gossip) Close() error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	if !g.running.Load() {
		return g.wire.Shutdown()
	}
	g.cancel()
	g.wire.stop() // ends dialing, which rejoin may wait for
	g.wg.Wait()
	return errors.Join(g.view.close(), g.list.Shutdown())
}
