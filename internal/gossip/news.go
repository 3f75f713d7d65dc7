package gossip

import (
	"sync"
	"time"

	"kvstore/internal/fault"
)

const (
	// calmLoad is how many intervals pass before a change of load alone is said:
	// it changes all the time.
	calmLoad = 10
	// calmMembers is the number of members per interval that may speak; in a
	// larger cluster everyone speaks more rarely.
	calmMembers = 16
)

// news is what this node has to say about itself.
type news struct {
	mu   sync.Mutex
	want Meta // guarded by mu

	// Of the goroutine that announces.
	said   Meta
	saidAt time.Duration
}

func (n *news) begin(m Meta) { n.want, n.said = m, m }

// Update says m from now on, at most once per interval, and more rarely when
// only Load changed or the cluster is large. Started stays what Start was told.
// It fails before Start and when m is not valid, and then changes nothing.
func (g *Gossip) Update(m Meta) error {
	if !g.running.Load() {
		return fault.New(fault.FailedPrecondition, "gossip has not started")
	}
	m.Started = g.started
	if _, err := m.encode(g.cluster); err != nil {
		return err
	}
	g.news.mu.Lock()
	g.news.want = m
	g.news.mu.Unlock()
	g.look()
	return nil
}

// announce hands memberlist what there is to say, when its time has come.
func (g *Gossip) announce() {
	g.news.mu.Lock()
	want := g.news.want
	g.news.mu.Unlock()
	if want == g.news.said || g.leaving.Load() {
		return
	}
	g.table.mu.Lock()
	members := len(g.table.all)
	g.table.mu.Unlock()
	gap := g.o.Interval * time.Duration(1+members/calmMembers)
	quiet := want
	quiet.Load = g.news.said.Load
	if quiet == g.news.said {
		gap *= calmLoad
	}
	now := g.o.Clock.Mono()
	if g.news.saidAt != 0 && now-g.news.saidAt < gap {
		return // a later turn of the loop comes
	}
	said, err := want.encode(g.cluster)
	if err != nil {
		return // Update has checked it
	}
	g.judge.announced.Store(&said)
	// It waits for the message to be sent as often as it will be; we do not.
	_ = g.list.UpdateNode(time.Nanosecond)
	g.news.said, g.news.saidAt = want, now
	g.look()
}
