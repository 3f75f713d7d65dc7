package gossip

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"kvstore/internal/fault"
)

// protocolVersion is the version of memberlist's protocol that we speak.
const protocolVersion = memberlist.ProtocolVersion2Compatible

// judge stands between memberlist and what it hears: it decides who may be a
// member, hands out this node's own Meta, and passes on who moved. memberlist
// calls it with its lock held, so it calls nothing of memberlist's.
type judge struct {
	g *Gossip
	// announced is this node's encoded Meta.
	announced atomic.Pointer[[]byte]

	mu       sync.Mutex
	names    map[string]bool // members that were let in; guarded by mu
	doubleAt time.Time       // when a double was last logged; guarded by mu
}

var (
	_ memberlist.AliveDelegate = (*judge)(nil)
	_ memberlist.EventDelegate = (*judge)(nil)
	_ memberlist.Delegate      = (*judge)(nil)
)

// NotifyAlive implements memberlist.AliveDelegate: an error refuses the
// message.
func (j *judge) NotifyAlive(n *memberlist.Node) error {
	why, err := j.admit(n)
	if err != nil {
		j.g.drops.count(why)
	}
	return err
}

func (j *judge) admit(n *memberlist.Node) (reason, error) {
	if !isID(n.Name) || !n.Addr.Equal(addressOf(n.Name)) || n.Port != addressPort {
		return dropIdentity, fault.New(fault.InvalidArgument, "its name is no node id, or its address is not that of its name")
	}
	if n.PMin > protocolVersion || n.PMax < protocolVersion || n.PCur != protocolVersion || n.DMin != 0 || n.DMax != 0 || n.DCur != 0 {
		// One member whose versions exclude ours would make memberlist refuse
		// every exchange of lists.
		return dropProtocol, fault.New(fault.InvalidArgument, "it speaks no version of memberlist's protocol that this node does", "wanted", protocolVersion)
	}
	m, cluster, err := decodeMeta(n.Meta)
	if err != nil {
		return dropMeta, err
	}
	if cluster != j.g.cluster {
		return dropCluster, fault.New(fault.FailedPrecondition, "it belongs to another cluster of the same name")
	}
	if n.Name == string(j.g.o.Node) {
		j.judgeDouble(m)
	}
	return j.enter(n.Name)
}

// enter bounds the members.
func (j *judge) enter(name string) (reason, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.names[name] && len(j.names) >= maxMembers {
		return dropFull, fault.New(fault.Overloaded, "there are as many members as there may be", "limit", maxMembers)
	}
	j.names[name] = true
	return 0, nil
}

// keep lets go of the names that memberlist has forgotten.
func (j *judge) keep(known map[string]bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.names = known
}

// judgeDouble says so when a later life of this node is heard of: another
// process runs on a copy of its data directory. memberlist lets both contend.
func (j *judge) judgeDouble(m Meta) {
	if m.Started <= j.g.started {
		return // this life, or one before
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if time.Since(j.doubleAt) < time.Minute {
		return
	}
	j.doubleAt = time.Now()
	j.g.o.Logger.Error("another process runs under this node's id", "its_peer_address", m.Peer, "its_name", m.Name)
}

// NotifyJoin implements memberlist.EventDelegate.
func (j *judge) NotifyJoin(n *memberlist.Node) { j.moved(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (j *judge) NotifyUpdate(n *memberlist.Node) { j.moved(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (j *judge) NotifyLeave(*memberlist.Node) { j.g.look() }

// moved notes where a member is now, before the first packet to it.
func (j *judge) moved(n *memberlist.Node) {
	if m, _, err := decodeMeta(n.Meta); err == nil {
		j.g.wire.places.point(n.Name, m)
	}
	j.g.look()
}

// NodeMeta implements memberlist.Delegate.
func (j *judge) NodeMeta(int) []byte { return *j.announced.Load() }

// NotifyMsg implements memberlist.Delegate; nobody sends such messages.
func (j *judge) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (j *judge) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (j *judge) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (j *judge) MergeRemoteState([]byte, bool) {}
