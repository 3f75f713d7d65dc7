package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/zeebo/xxh3"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// sendBytes is the size memberlist fills packets up to; maxPacketBytes has
	// room for what it adds to them. Larger ones are dropped: compressed ones
	// could become very large.
	sendBytes      = 1400
	maxPacketBytes = 2048
	// packetQueue bounds packets that wait for memberlist, streamQueue streams.
	packetQueue = 256
	streamQueue = 16
	// readPause is how long reading rests after an error.
	readPause = 50 * time.Millisecond
)

// addressOf is the address of a member as memberlist knows it; see the package
// comment.
func addressOf(id string) net.IP {
	h := xxh3.HashString128(id).Bytes()
	h[0] = 0xfd // an address that is routed nowhere, in case somebody tries
	return h[:]
}

// addressPort goes with addressOf.
const addressPort = 1

// joinAddress is how memberlist.Join is told a member.
func joinAddress(id string) string {
	return fmt.Sprintf("%s/[%s]:%d", id, addressOf(id), addressPort)
}

// wire is memberlist's transport: packets by a socket, streams by a dialer and
// by take. It knows where members are, by their ids.
type wire struct {
	self    string
	label   string
	packets net.PacketConn
	dialer  func(ctx context.Context, addr string) (net.Conn, error)
	peers   func() map[keyspace.NodeID]string
	drops   *drops
	sealed  bool // there are keys

	in      chan *memberlist.Packet
	streams chan net.Conn

	places places
	open   openStreams

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*wire)(nil)

func newWire(o *Options, label string, d *drops) *wire {
	w := &wire{
		self: string(o.Node), label: label, packets: o.Packets, dialer: o.Dial, peers: o.Peers, drops: d,
		in: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn, streamQueue),
	}
	w.places.init(o.Packets.LocalAddr())
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// start begins to read packets and to resolve names.
func (w *wire) start() {
	w.wg.Go(w.read)
	w.wg.Go(func() { w.places.resolve(w.ctx) })
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return addressOf(w.self), addressPort, nil
}

// WriteToAddress implements memberlist.NodeAwareTransport. A packet that cannot
// be sent because nobody knows where to is lost like any other: memberlist
// would not go on to suspect the member after an error.
func (w *wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to := w.places.packets(a.Name)
	if to == nil {
		w.drops.count(dropNowhere)
		return time.Now(), nil
	}
	_, err := w.packets.WriteTo(b, to)
	return time.Now(), err
}

// WriteTo implements memberlist.Transport.
func (w *wire) WriteTo(b []byte, addr string) (time.Time, error) {
	return w.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// PacketCh implements memberlist.Transport.
func (w *wire) PacketCh() <-chan *memberlist.Packet { return w.in }

// StreamCh implements memberlist.Transport.
func (w *wire) StreamCh() <-chan net.Conn { return w.streams }

// read takes packets until the socket is closed.
func (w *wire) read() {
	buf := make([]byte, maxPacketBytes+1)
	for {
		n, from, err := w.packets.ReadFrom(buf)
		switch {
		case w.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil: // what a former packet met, on some systems
			w.pause()
		default:
			w.receive(buf[:n], from)
		}
	}
}

func (w *wire) pause() {
	timer := time.NewTimer(readPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// receive hands one packet to memberlist, which may keep what it gets.
func (w *wire) receive(b []byte, from net.Addr) {
	if len(b) > maxPacketBytes {
		w.drops.count(dropTooLarge)
		return
	}
	if len(b) == 0 {
		w.drops.count(dropMalformed)
		return
	}
	body, label, err := memberlist.RemoveLabelHeaderFromPacket(b)
	if err != nil || label != w.label {
		w.drops.count(dropLabel)
		return
	}
	if w.sealed && (len(body) == 0 || body[0] != sealVersion) {
		w.drops.count(dropDecrypt)
		return
	}
	select {
	case w.in <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: time.Now()}:
	default:
		w.drops.count(dropBusy)
	}
}

// take takes an incoming stream, or closes it.
func (w *wire) take(conn net.Conn) {
	s := w.open.track(conn, w.sealed)
	if s == nil {
		w.drops.count(dropBusy)
		return
	}
	select {
	case w.streams <- s:
	default:
		w.drops.count(dropBusy)
		_ = s.Close()
	}
}

// inside takes a stream that the view opened.
func (w *wire) inside(conn net.Conn) {
	select {
	case w.streams <- conn:
	default:
		_ = conn.Close()
	}
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (w *wire) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	candidates := w.candidates(a.Name)
	err := error(fault.New(fault.Unavailable, "no peer address of the member is known", "node_id", a.Name))
	for i, addr := range candidates {
		var conn net.Conn
		if conn, err = w.dialOne(ctx, addr, timeout/time.Duration(len(candidates)-i)); err != nil {
			continue
		}
		if s := w.open.track(conn, w.sealed); s != nil {
			return s, nil
		}
		return nil, fault.New(fault.Overloaded, "too many streams of gossip are open", "limit", maxStreams)
	}
	return nil, err
}

func (w *wire) dialOne(ctx context.Context, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return w.dialer(ctx, addr)
}

// DialTimeout implements memberlist.Transport.
func (w *wire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// candidates are the peer addresses to try: what the member said last, and what
// the address book says.
func (w *wire) candidates(id string) []string {
	var out []string
	if said := w.places.streams(id); said != "" {
		out = append(out, said)
	}
	if booked := w.peers()[keyspace.NodeID(id)]; booked != "" && (len(out) == 0 || out[0] != booked) {
		out = append(out, booked)
	}
	return out
}

// Shutdown implements memberlist.Transport. It returns once nothing is read any
// more and every stream is closed.
func (w *wire) Shutdown() error {
	w.stop()
	err := w.packets.Close()
	w.open.close()
	w.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
