package gossip

import (
	"errors"
	"io"
	"log"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// viewTimeout bounds one look; it stays within the process.
const viewTimeout = 2 * time.Second

// view sees the list of a memberlist as that sends it to others; see the
// package comment. It is used by one goroutine.
type view struct {
	list   *memberlist.Memberlist
	target string
	// seen is what the look in progress got; the list calls NotifyMerge on the
	// goroutine of Join.
	seen []*memberlist.Node
}

var errSeen = errors.New("the list was seen")

// newView looks at target's list, whose streams open takes.
func newView(target string, c *memberlist.Config, open func(net.Conn)) (*view, error) {
	v := &view{target: target}
	mine := memberlist.DefaultLANConfig()
	mine.Name, mine.Label, mine.Keyring = target+"-view", c.Label, c.Keyring
	mine.Transport = &viewWire{name: mine.Name, open: open}
	mine.Merge = v
	mine.Logger = log.New(io.Discard, "", 0)
	mine.TCPTimeout = viewTimeout
	mine.ProbeInterval, mine.GossipInterval, mine.PushPullInterval = 0, 0, 0
	list, err := memberlist.Create(mine)
	if err != nil {
		return nil, err
	}
	v.list = list
	if err := list.Leave(viewTimeout); err != nil { // nobody is told
		return nil, errors.Join(err, list.Shutdown())
	}
	return v, nil
}

// look returns copies of all nodes of the list, with their states; false when
// it did not answer.
func (v *view) look() ([]*memberlist.Node, bool) {
	v.seen = nil
	_, _ = v.list.Join([]string{joinAddress(v.target)}) // it always fails, at best with errSeen
	return v.seen, v.seen != nil
}

// NotifyMerge implements memberlist.MergeDelegate.
func (v *view) NotifyMerge(nodes []*memberlist.Node) error {
	v.seen = nodes
	return errSeen
}

func (v *view) close() error { return v.list.Shutdown() }

// viewWire is a transport to one member in the same process.
type viewWire struct {
	name string
	open func(net.Conn)
}

var _ memberlist.NodeAwareTransport = (*viewWire)(nil)

func (w *viewWire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return addressOf(w.name), addressPort, nil
}

func (w *viewWire) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	mine, theirs := net.Pipe()
	w.open(theirs)
	return mine, mine.SetDeadline(time.Now().Add(viewTimeout)) // for the label, which memberlist writes without one
}

func (w *viewWire) DialTimeout(string, time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{}, 0)
}

func (w *viewWire) WriteToAddress([]byte, memberlist.Address) (time.Time, error) {
	return time.Now(), nil
}
func (w *viewWire) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (w *viewWire) PacketCh() <-chan *memberlist.Packet       { return nil }
func (w *viewWire) StreamCh() <-chan net.Conn                 { return nil }
func (w *viewWire) Shutdown() error                           { return nil }
