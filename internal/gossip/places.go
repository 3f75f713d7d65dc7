package gossip

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// resolveEvery is how often host names are looked up again, resolveTimeout
	// bounds one look-up, resolveAtOnce how many run at a time.
	resolveEvery   = 30 * time.Second
	resolveTimeout = 2 * time.Second
	resolveAtOnce  = 8
)

// places knows where members are, as they said last. Sending never waits for a
// name to be resolved: that is done beside, and packets are lost until then.
type places struct {
	six bool // the socket reaches IPv6 rather than IPv4

	mu    sync.RWMutex
	all   map[string]place // by member; guarded by mu
	count uint64           // of what was said; guarded by mu

	wake chan struct{}
}

type place struct {
	gossip, peer string // host:port
	to           net.Addr
	said         uint64 // which of count it was
}

func (p *places) init(local net.Addr) {
	p.all, p.wake = map[string]place{}, make(chan struct{}, 1)
	if u, ok := local.(*net.UDPAddr); ok {
		p.six = u.IP.To4() == nil && !u.IP.IsUnspecified()
	}
}

// point records what a member said.
func (p *places) point(id string, m Meta) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, known := p.all[id]
	if !known && len(p.all) >= 2*maxMembers {
		return // members that went make room by forget
	}
	p.count++
	next := place{gossip: m.Gossip, peer: m.Peer, said: p.count}
	switch at, err := netip.ParseAddrPort(m.Gossip); {
	case err == nil && !at.Addr().IsUnspecified():
		next.to = net.UDPAddrFromAddrPort(at)
	case err == nil: // it can be sent nothing
	case old.gossip == m.Gossip:
		next.to = old.to
	default:
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	p.all[id] = next
}

// now is the moment for forget: before the look at the list.
func (p *places) now() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.count
}

// forget drops all members but those that keep names, and who said something after a
// moment: a member that came while the list was looked at is not in what was seen, and
// says where it is only once.
func (p *places) forget(moment uint64, keep func(id string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, at := range p.all {
		if at.said <= moment && !keep(id) {
			delete(p.all, id)
		}
	}
}

// packets returns where to send a member packets; nil while it is not known.
func (p *places) packets(id string) net.Addr {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.all[id].to
}

// streams returns a member's peer address; "" while it is not known.
func (p *places) streams(id string) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.all[id].peer
}

// resolve looks up host names until ctx ends.
func (p *places) resolve(ctx context.Context) {
	ticker := time.NewTicker(resolveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.wake:
		}
		p.resolveAll(ctx)
	}
}

func (p *places) resolveAll(ctx context.Context) {
	p.mu.RLock()
	names := map[string]string{} // id -> host:port
	for id, at := range p.all {
		if _, err := netip.ParseAddrPort(at.gossip); err != nil {
			names[id] = at.gossip
		}
	}
	p.mu.RUnlock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, resolveAtOnce)
	for id, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if to := p.lookUp(ctx, name); to != nil {
				p.resolved(id, name, to)
			}
		})
	}
	wg.Wait()
}

func (p *places) resolved(id, name string, to net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.all[id]; ok && at.gossip == name {
		at.to = to
		p.all[id] = at
	}
}

// lookUp returns the address of host:port, nil when it has none now.
func (p *places) lookUp(ctx context.Context, name string) net.Addr {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return nil
	}
	best := slices.IndexFunc(found, func(a netip.Addr) bool { return a.Unmap().Is4() != p.six })
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(found[max(best, 0)].Unmap(), uint16(number)))
}
