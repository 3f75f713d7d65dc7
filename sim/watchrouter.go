package sim

import (
	"context"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
	"kvstore/internal/watch"
)

// What a watchHub is to its hub beside the tasks: host, router and peers.

// Follow implements watch.Host.
func (h *watchHub) Follow(ctx context.Context, g keyspace.GroupID, wake func()) (watch.Feed, host.FeedPage, error) {
	defer h.n.wake() // it tells its loop things
	feed, at, err := h.Host.Follow(host.RunsLoop(ctx), g, func() {
		wake()
		h.kick()
	})
	if err != nil {
		return nil, at, err
	}
	return simFeed{feed, h}, at, nil
}

type simFeed struct {
	watch.Feed
	h *watchHub
}

func (f simFeed) Close() {
	f.Feed.Close()
	if f.h.n.life == f.h.life {
		f.h.n.wake()
	}
}

// Past implements watch.Host.
func (h *watchHub) Past(ctx context.Context, r host.PastRequest) (host.PastPage, error) {
	return h.Host.Past(host.RunsLoop(ctx), r)
}

// WatchedNamespace, and what follows, implement watch.Router.
func (h *watchHub) WatchedNamespace(context.Context, string) (keyspace.NamespaceID, error) {
	return keyspace.DefaultNamespace, nil
}

// table is the map that the node knows.
func (h *watchHub) table() *router.Map {
	if h.known == nil {
		h.known = h.n.w.slots.past[0]
	}
	return h.known
}

func (h *watchHub) GroupOf(slot keyspace.SlotID) (keyspace.GroupID, bool) {
	return h.table().GroupOf(slot)
}

func (h *watchHub) DataGroups() (groups []keyspace.GroupID) {
	for g := keyspace.GroupID(1); int(g) <= h.n.w.cfg.Groups; g++ {
		if owned := h.table().Owned(g); !owned.Empty() {
			groups = append(groups, g)
		}
	}
	return groups
}

func (h *watchHub) Owned(g keyspace.GroupID) format.SlotSet { return h.table().Owned(g) }

// Refresh reads the newest map, or one of before.
func (h *watchHub) Refresh(context.Context) error {
	w := h.n.w
	d := w.between(time.Millisecond, 20*time.Millisecond)
	err := h.await(time.Minute, func(done func()) { w.after(d, done) })
	h.known = (&slotEnd{n: h.n}).Map()
	return err
}

// Holders are the other nodes that are up and have a replica.
func (h *watchHub) Holders(g keyspace.GroupID) (ids []keyspace.NodeID) {
	for _, n := range h.n.w.nodes {
		if n != h.n && n.hub != nil && n.hub.Hosts(g) {
			ids = append(ids, n.id())
		}
	}
	return ids
}

// clocksWithin is what the hub gives a reading of clocks.
const clocksWithin = time.Second

func (h *watchHub) ReadClocks(_ context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) (out []host.ClockReading) {
	over := false
	_ = h.await(clocksWithin, func(done func()) {
		for _, g := range groups {
			h.readClock(host.ClockAsk{Group: g, AtLeast: atLeast}, func(r host.ClockReading) {
				if over {
					return
				}
				if out = append(out, r); len(out) == len(groups) {
					done()
				}
			})
		}
	})
	over = true
	return out
}

// readClock asks whoever leads a group, over the network.
func (h *watchHub) readClock(ask host.ClockAsk, answer func(host.ClockReading)) {
	w := h.n.w
	to := w.leader(ask.Group)
	if to == nil {
		return
	}
	life := to.life
	w.hop(h.n, to, func() {
		to.whenAwake(life, func() {
			to.host.AskClockAsync(context.Background(), ask, func(r host.ClockReading) { w.hop(to, h.n, func() { answer(r) }) })
			to.wake()
		})
	})
}

// Client implements watch.Peers.
func (h *watchHub) Client(id keyspace.NodeID) (api.PeerClient, error) {
	i, wiped := h.n.w.find(id)
	if i < 0 || wiped || h.n.w.nodes[i].hub == nil {
		return nil, fault.New(fault.Unavailable, "the node is not there", "node", id)
	}
	return &peerLink{from: h, to: h.n.w.nodes[i].hub}, nil
}

// feedBytes is small where there are watches, so that some fall behind.
func (w *World) feedBytes() int {
	if w.cfg.Watchers == 0 {
		return 0 // the default
	}
	return simFeedBytes
}
