package sim

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// outbound is one life's connection to the network. A frame is what was sent
// to one node between two flushes; frames are lost, doubled, delayed and
// reordered.
type outbound struct {
	n      *node
	life   int
	queued map[int][]*api.GroupMessage
}

func (o *outbound) Send(to keyspace.NodeID, m *api.GroupMessage) {
	i, wiped := o.n.w.find(to)
	if i < 0 || wiped {
		return
	}
	if o.queued == nil {
		o.queued = make(map[int][]*api.GroupMessage)
	}
	o.queued[i] = append(o.queued[i], proto.CloneOf(m))
}

func (o *outbound) Flush() {
	for i := range o.n.w.nodes {
		if msgs := o.queued[i]; len(msgs) > 0 {
			delete(o.queued, i)
			o.n.w.transmit(o.n, o.n.w.nodes[i], msgs)
		}
	}
}

// find returns a node's index; wiped when the id is of an earlier directory.
func (w *World) find(id keyspace.NodeID) (index int, wiped bool) {
	for i, n := range w.nodes {
		for life := 0; life <= n.wiped; life++ {
			if nodeID(i, life) == id {
				return i, life != n.wiped
			}
		}
	}
	return -1, false
}

func (w *World) transmit(from, to *node, msgs []*api.GroupMessage) {
	w.stats.Messages++
	w.spend(len(msgs))
	if w.cut[[2]int{from.index, to.index}] || (w.faultsOn && w.chance(0.01)) {
		w.stats.Lost++
		return
	}
	copies := 1
	if w.faultsOn && w.chance(0.01) {
		copies++
		w.stats.Duplicated++
	}
	sender, clock, target := from.id(), from.Wall(), to.id()
	for range copies {
		delay := w.between(100*time.Microsecond, 2*time.Millisecond)
		if w.faultsOn && w.chance(0.02) {
			delay = w.between(0, 300*time.Millisecond)
		}
		w.after(delay, func() {
			if to.id() != target || to.host == nil || w.cut[[2]int{from.index, to.index}] {
				return
			}
			to.whenAwake(to.life, func() {
				to.host.Deliver(sender, clock, msgs)
				to.wake()
			})
		})
	}
}

var errCut = errors.New("connection lost")

// SendSnapshot streams to the receiver's real sink, with a chance to break off.
func (n *node) SendSnapshot(_ context.Context, h *api.SnapshotHeader, next func() ([]byte, error)) error {
	w := n.w
	i, wiped := w.find(keyspace.NodeID(h.GetToNode()))
	if i < 0 || wiped || w.cut[[2]int{n.index, i}] || w.nodes[i].host == nil {
		return errCut
	}
	to := w.nodes[i]
	sink, err := to.host.ReceiveSnapshot(h)
	if err != nil {
		return err
	}
	for {
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && w.faultsOn && w.chance(0.05) {
			err = errCut
		}
		if err == nil {
			err = sink.Write(chunk)
		}
		if err != nil {
			sink.Abort()
			return err
		}
	}
	sink.FinishAsync(func(error) {})
	to.wake()
	return nil
}
