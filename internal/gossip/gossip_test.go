package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Nodes that know of each other meet, and what one says all hear.
func TestMembersMeet(t *testing.T) {
	n := newNetwork()
	a, b, c := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-b", nodeOptions{}), n.mustNode(t, "node-c", nodeOptions{})
	allSee(t, Alive, a, b, c)
	said := b.says("b2")
	said.Health, said.Leads, said.Epoch, said.Load = HealthGroups, 3, 7, 40
	if err := b.Update(said); err != nil {
		t.Fatal(err)
	}
	for _, other := range []*node{a, c} {
		eventually(t, func() error {
			got := other.member("node-b").Meta
			got.Started = said.Started // that of Start stays
			if got != said {
				return fmt.Errorf("%s hears %+v", other.id, got)
			}
			return nil
		})
	}
	eventually(t, func() error {
		if s := a.Stats(); s.Members["alive"] != 3 || s.Members["dead"] != 0 || s.Keys != 0 {
			return fmt.Errorf("stats %+v", s)
		}
		return nil
	})
	said.Name = "not a name"
	if err := b.Update(said); fault.CodeOf(err) != fault.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// One that goes without a word is suspect, then dead; one that leaves has left
// at once, and is not suspected.
func TestStates(t *testing.T) {
	n, calm := newNetwork(), nodeOptions{interval: calmInterval}
	a, b, c := n.mustNode(t, "node-a", calm), n.mustNode(t, "node-b", calm), n.mustNode(t, "node-c", calm)
	allSee(t, Alive, a, b, c)
	before := a.member("node-b").Since
	b.stop(t)
	a.sees(t, Dead, b)
	if got := a.history("node-b"); !slices.Contains(got, Suspect) || got[len(got)-1] != Dead {
		t.Errorf("node-b was %v", got)
	}
	if since := a.member("node-b").Since; since <= before {
		t.Errorf("dead since %v, alive since %v", since, before)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	c.stop(t)
	a.sees(t, Left, c)
}

// A node that comes back elsewhere under its id is there at once; it is never
// declared dead. What the others remember of its former life does not stand in
// its way.
func TestAddressChange(t *testing.T) {
	n, calm := newNetwork(), nodeOptions{interval: calmInterval}
	a, b, c := n.mustNode(t, "node-a", calm), n.mustNode(t, "node-b", calm), n.mustNode(t, "node-c", calm)
	allSee(t, Alive, a, b, c)
	for i := range 3 { // so that its incarnation is higher than that of a new process
		said := b.says(fmt.Sprint("b", i))
		if err := b.Update(said); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if got := a.member("node-b").Meta.Name; got != said.Name {
				return errors.New("not heard: " + got)
			}
			return nil
		})
	}
	b.stop(t)
	moved := n.mustNode(t, "node-b", nodeOptions{host: "10.0.9.9", interval: calmInterval})
	for _, other := range []*node{a, c} {
		eventually(t, func() error {
			m := other.member("node-b")
			if m.Meta.Gossip != moved.gossipAddr() || m.State != Alive {
				return fmt.Errorf("%s has it at %s, %v", other.id, m.Meta.Gossip, m.State)
			}
			return nil
		})
		if got := other.history("node-b"); slices.Contains(got, Dead) {
			t.Errorf("%s saw %v", other.id, got)
		}
	}
	allSee(t, Alive, a, moved, c)
	// Packets reach it there: it stays alive with its streams cut off.
	for _, other := range []*node{a, c} {
		if to := other.wire.places.packets("node-b"); to == nil || to.String() != moved.gossipAddr() {
			t.Errorf("%s sends to %v", other.id, to)
		}
	}
}

// A returning node may also be elsewhere than the address book says.
func TestAddressBookIsBehind(t *testing.T) {
	n := newNetwork()
	a, b := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-b", nodeOptions{})
	allSee(t, Alive, a, b)
	b.stop(t)
	a.sees(t, Dead, b)
	moved := n.mustNode(t, "node-b", nodeOptions{host: "10.0.9.9", unbooked: true})
	allSee(t, Alive, a, moved)
}

// The halves of a partition meet again after both have forgotten each other.
func TestPartitionHeals(t *testing.T) {
	n := newNetwork()
	o := nodeOptions{rejoin: 200 * time.Millisecond}
	a, b, c, d := n.mustNode(t, "node-a", o), n.mustNode(t, "node-b", o), n.mustNode(t, "node-c", o), n.mustNode(t, "node-d", o)
	allSee(t, Alive, a, b, c, d)
	cut := func(on bool) {
		for _, l := range []*node{a, b} {
			for _, r := range []*node{c, d} {
				n.block(l.host, r.host, on)
			}
		}
	}
	cut(true)
	for _, l := range []*node{a, b} {
		l.sees(t, Dead, c, d)
		l.forgets(t, "node-c", "node-d")
	}
	for _, r := range []*node{c, d} {
		r.sees(t, Dead, a, b)
		r.forgets(t, "node-a", "node-b")
	}
	a.sees(t, Alive, b)
	d.sees(t, Alive, c)
	cut(false)
	allSee(t, Alive, a, b, c, d)
}

// forgets waits until memberlist has dropped members from its list.
func (n *node) forgets(t *testing.T, ids ...string) {
	t.Helper()
	eventually(t, func() error {
		n.judge.mu.Lock()
		defer n.judge.mu.Unlock()
		for _, id := range ids {
			if n.judge.names[id] {
				return fmt.Errorf("%s still lists %s", n.id, id)
			}
		}
		return nil
	})
}

// A cluster of another name is not heard, by packets nor by streams.
func TestLabel(t *testing.T) {
	n := newNetwork()
	a, b := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-b", nodeOptions{})
	x := n.mustNode(t, "node-x", nodeOptions{cluster: "other"})
	allSee(t, Alive, a, b)
	counted(t, a, "label") // by streams: both try to join
	before := a.Stats().Dropped["label"]
	if _, err := x.wire.packets.WriteTo([]byte("\xf4\x05otherxxxx"), address(a.gossipAddr())); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if a.Stats().Dropped["label"] == before {
			return errors.New("the packet is not counted")
		}
		return nil
	})
	hasMembers(t, x, 1)
	hasMembers(t, a, 2)
}

// Two clusters of one name do not merge.
func TestOtherClusterOfSameName(t *testing.T) {
	n := newNetwork()
	a, x := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-x", nodeOptions{clusterID: "test-2"})
	counted(t, a, "cluster")
	counted(t, x, "cluster")
	hasMembers(t, x, 1)
	hasMembers(t, a, 1)
}

func counted(t *testing.T, n *node, reason string) {
	t.Helper()
	eventually(t, func() error {
		if n.Stats().Dropped[reason] == 0 {
			return fmt.Errorf("%s counts no %s: %v", n.id, reason, n.Stats().Dropped)
		}
		return nil
	})
}

// hasMembers waits until a node has seen its list, and then wants so many.
func hasMembers(t *testing.T, n *node, want int) {
	t.Helper()
	eventually(t, func() error {
		if len(n.Members()) == 0 {
			return errors.New("it sees nobody")
		}
		return nil
	})
	if got := n.Members(); len(got) != want {
		t.Errorf("%s sees %v", n.id, got)
	}
}

func TestLongLabel(t *testing.T) {
	long := strings.Repeat("x", 300)
	if got := label(long); len(got) > memberlist.LabelMaxSize || got == label(long+"y") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if label("kvstore") != "kvstore" {
		t.Error("a short name is changed")
	}
}

// rogue is a plain memberlist on the network, which says what it likes.
type rogue struct {
	memberlist.Delegate
	meta []byte
}

func (r rogue) NodeMeta(int) []byte             { return r.meta }
func (r rogue) NotifyMsg([]byte)                {}
func (r rogue) GetBroadcasts(_, _ int) [][]byte { return nil }
func (r rogue) LocalState(bool) []byte          { return nil }
func (r rogue) MergeRemoteState([]byte, bool)   {}

// startRogue runs it and has it join a node.
func (n *network) startRogue(t *testing.T, id, host string, meta []byte, to *node, change func(*memberlist.Config)) {
	t.Helper()
	var d drops
	o := Options{Node: keyspace.NodeID(id), Packets: n.listen(host + ":7947"), Dial: n.dial(host), Peers: n.peers}
	w := newWire(&o, "test", &d)
	w.start()
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.Transport, c.Delegate = id, "test", w, rogue{meta: meta}
	c.Logger = newLogs(slogDiscard, &d)
	if change != nil {
		change(c)
	}
	list, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = list.Shutdown() })
	if _, err := list.Join([]string{joinAddress(string(to.id))}); err != nil {
		t.Logf("%s: %v", id, err)
	}
}

// Members that are malformed or lie about who they are are counted and not
// heard; the others go on.
func TestRogues(t *testing.T) {
	n := newNetwork()
	a, b := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-b", nodeOptions{})
	allSee(t, Alive, a, b)
	good, err := a.says("x").encode(a.cluster)
	if err != nil {
		t.Fatal(err)
	}
	future := slices.Clone(good)
	future[0] = metaVersion + 1
	for i, r := range []struct {
		id     string
		meta   []byte
		change func(*memberlist.Config)
		reason string
	}{
		{"node-empty", nil, nil, "meta"},
		{"node-garbage", []byte(strings.Repeat("\xff", 512)), nil, "meta"},
		{"node-cut", good[:len(good)-3], nil, "meta"},
		{"node-future", future, nil, "meta"},
		{"Not An Id", good, nil, "identity"},
		{"node-versions", good, func(c *memberlist.Config) { c.ProtocolVersion = memberlist.ProtocolVersionMax }, "protocol"},
		{"node-delegate", good, func(c *memberlist.Config) { c.DelegateProtocolVersion, c.DelegateProtocolMax = 1, 1 }, ""},
	} {
		before := a.Stats().Dropped
		n.startRogue(t, r.id, fmt.Sprintf("10.0.1.%d", i+1), r.meta, a, r.change)
		eventually(t, func() error {
			if now := a.Stats().Dropped; r.reason != "" && now[r.reason] == before[r.reason] {
				return fmt.Errorf("%s is not counted: %v", r.id, now)
			}
			return nil
		})
		if a.StateOf(keyspace.NodeID(r.id)) != 0 {
			t.Errorf("%s is a member", r.id)
		}
	}
	c := n.mustNode(t, "node-c", nodeOptions{})
	allSee(t, Alive, a, b, c)
	if got := len(b.Members()); got != 3 {
		t.Errorf("%d members: %v", got, b.Members())
	}
}

// A second process under one id is said, and nothing else breaks.
func TestDouble(t *testing.T) {
	n := newNetwork()
	a, b := n.mustNode(t, "node-a", nodeOptions{}), n.mustNode(t, "node-b", nodeOptions{})
	allSee(t, Alive, a, b)
	n.mustNode(t, "node-b", nodeOptions{host: "10.0.9.9", unbooked: true})
	eventually(t, func() error {
		b.judge.mu.Lock()
		defer b.judge.mu.Unlock()
		if b.judge.doubleAt.IsZero() {
			return errors.New("the first one does not say so")
		}
		return nil
	})
	a.sees(t, Alive, b)
}

// What is too large, empty or too much is dropped and counted.
func TestBounds(t *testing.T) {
	n := newNetwork()
	a := n.mustNode(t, "node-a", nodeOptions{})
	from := n.listen("10.0.2.1:7947")
	for reason, body := range map[string][]byte{
		"too_large": make([]byte, maxPacketBytes+1),
		"label":     []byte("x"),
		"malformed": nil,
	} {
		if _, err := from.WriteTo(body, address(a.gossipAddr())); err != nil {
			t.Fatal(err)
		}
		counted(t, a, reason)
	}
	// Streams that say nothing.
	dial := n.dial("10.0.2.1")
	for range 2 * maxStreams {
		conn, err := dial(t.Context(), a.peerAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	counted(t, a, "busy")
	b := n.mustNode(t, "node-b", nodeOptions{})
	allSee(t, Alive, a, b) // memberlist ends the silent ones
}

// A stream may not go on for ever.
func TestStreamBound(t *testing.T) {
	var o openStreams
	mine, theirs := net.Pipe()
	s := o.track(theirs, false)
	go func() {
		b := make([]byte, 64<<10)
		for {
			if _, err := mine.Write(b); err != nil {
				return
			}
		}
	}()
	var err error
	read := 0
	for b := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = s.Read(b)
		read += n
	}
	if read != maxStreamBytes || fault.CodeOf(err) != fault.MessageTooLarge {
		t.Errorf("%d bytes, %v", read, err)
	}
	o.close()
	if late := o.track(theirs, false); late != nil {
		t.Error("a stream is taken after close")
	}
}

// Host names are resolved beside sending.
func TestHostNames(t *testing.T) {
	var p places
	p.init(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.resolve(ctx)
	}()
	p.point("node-a", Meta{Gossip: "localhost:7947"})
	eventually(t, func() error {
		if to := p.packets("node-a"); to == nil || to.String() != "127.0.0.1:7947" {
			return fmt.Errorf("resolved to %v", to)
		}
		return nil
	})
	p.point("node-a", Meta{Gossip: "0.0.0.0:7947"})
	if to := p.packets("node-a"); to != nil {
		t.Errorf("nowhere is %v", to)
	}
	p.forget(p.now(), func(string) bool { return false })
	cancel()
	<-done
}

func TestLifecycle(t *testing.T) {
	n := newNetwork()
	o := Options{
		Node: "node-a", Cluster: "test", Packets: n.listen("10.0.0.1:7947"), Dial: n.dial("10.0.0.1"),
		Clock: system.Clock(), Rand: system.Rand(),
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := net.Pipe()
	g.Take(theirs) // is closed
	if _, err := mine.Read(make([]byte, 1)); err == nil {
		t.Error("a stream is taken before Start")
	}
	good := Meta{Name: "a", Gossip: "10.0.0.1:7947", Peer: "10.0.0.1:7946"}
	if err := g.Update(good); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Errorf("Update before Start: %v", err)
	}
	if err := errors.Join(g.Leave(t.Context()), g.Close(), g.Close(), g.Leave(t.Context())); err != nil {
		t.Error(err)
	}
	if err := g.Start("id", good); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Errorf("Start after Close: %v", err)
	}
	o.Node = "Not An Id"
	if _, err := New(o); fault.CodeOf(err) != fault.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// What is sealed in a way that memberlist would trust too much does not get to
// it; what is sealed well does, also byte by byte.
func TestSealedStreams(t *testing.T) {
	sealed := func(size uint32, version byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{sealedType}, size), version, 'x', 'y')
	}
	label := "\xf4\x04test"
	for name, c := range map[string]struct {
		sent string
		fine bool
	}{
		"good":         {label + string(sealed(leastSealed, 1)), true},
		"answer":       {string(sealed(1000, 1)), true},
		"plain":        {label + "\x06hello", true}, // memberlist refuses it
		"empty inside": {label + string(sealed(leastSealed-1, 1)), false},
		"padded":       {label + string(sealed(1000, 0)), false},
		"cut":          {label + "\x0a\x00", false},
		"no label":     {"\xf4", false},
	} {
		var o openStreams
		mine, theirs := net.Pipe()
		s := o.track(theirs, true)
		go func() {
			for i := range c.sent {
				if _, err := mine.Write([]byte{c.sent[i]}); err != nil {
					return
				}
			}
			_ = mine.Close()
		}()
		got, err := io.ReadAll(s)
		if c.fine && (err != nil || string(got) != c.sent) || !c.fine && err == nil {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		_ = s.Close()
	}
}

// The settings of the list follow the interval, also the long ones.
func TestScaled(t *testing.T) {
	for _, c := range []struct{ d, interval, want time.Duration }{
		{30 * time.Second, time.Second, 30 * time.Second},
		{30 * time.Second, 10 * time.Second, 300 * time.Second},
		{200 * time.Millisecond, 100 * time.Millisecond, 20 * time.Millisecond},
		{time.Millisecond, 100 * time.Millisecond, time.Millisecond},
	} {
		if got := scaled(c.d, c.interval); got != c.want {
			t.Errorf("%v at an interval of %v is %v, want %v", c.d, c.interval, got, c.want)
		}
	}
}

// Where a member is stays known when it comes while the list is looked at: it says so
// only once.
func TestPlacesOfNewcomersStay(t *testing.T) {
	var p places
	p.init(address("10.0.0.1:7947"))
	p.point("gone", Meta{Gossip: "10.0.0.2:7947"})
	p.point("stays", Meta{Gossip: "10.0.0.3:7947"})
	moment := p.now()
	p.point("comes", Meta{Gossip: "10.0.0.4:7947"})
	p.forget(moment, func(id string) bool { return id == "stays" })
	for id, want := range map[string]bool{"gone": false, "stays": true, "comes": true} {
		if got := p.packets(id) != nil; got != want {
			t.Errorf("%s is known: %v", id, got)
		}
	}
}
