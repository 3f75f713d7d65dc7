package node

import (
	"sync"
	"sync/atomic"

	"kvstore/internal/fault"
)

// gone is what became of a node that does not belong to its cluster any more,
// once it knows: from the metadata, which it may still read, or from the first
// peer that it greets. It runs on, so that whoever asks is told, but serves
// nobody, is not ready, and leaves gossip. It is final: node ids never return.
type gone struct {
	once   sync.Once
	reason atomic.Pointer[string]
	told   chan struct{} // closed when it is known
}

func (g *gone) text() string {
	if text := g.reason.Load(); text != nil {
		return *text
	}
	return ""
}

// refusal is what clients get: others of the cluster may serve them.
func (g *gone) refusal() error {
	if text := g.text(); text != "" {
		return fault.New(fault.Unavailable, text)
	}
	return nil
}

// toldGone takes in what became of this node.
func (n *Node) toldGone(text string) {
	n.gone.once.Do(func() {
		n.logger.Warn("this node serves nobody any more", "reason", text)
		n.gone.reason.Store(&text)
		close(n.gone.told)
	})
}
