package gossip

import "sync/atomic"

// reason is why something was dropped.
type reason int

const (
	dropLabel     reason = iota // of another cluster's name
	dropDecrypt                 // sealed with no key of ours, or not as ours is
	dropMalformed               // memberlist cannot read it
	dropTooLarge                // a packet beyond maxPacketBytes
	dropBusy                    // more packets or streams than may wait
	dropIdentity                // no node id, or an address that is not its own
	dropProtocol                // versions that do not go with ours
	dropMeta                    // Meta that is not valid
	dropCluster                 // of another cluster of the same name
	dropFull                    // members beyond maxMembers
	dropNowhere                 // to send, with no address to send to
	reasons
)

var reasonNames = [reasons]string{
	"label", "decrypt", "malformed", "too_large", "busy", "identity", "protocol", "meta", "cluster", "full", "no_address",
}

// drops counts what was dropped.
type drops [reasons]atomic.Int64

func (d *drops) count(r reason) { d[r].Add(1) }

// all returns every reason, also those that never came.
func (d *drops) all() map[string]int64 {
	out := make(map[string]int64, reasons)
	for r, name := range reasonNames {
		out[name] = d[r].Load()
	}
	return out
}
