package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// patience bounds every wait of a test; it is reached only on failure.
const patience = 20 * time.Second

// dialer dials for real and keeps its connections.
type dialer struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func newDialer(t *testing.T) *dialer {
	d := &dialer{conns: map[string]*grpc.ClientConn{}}
	t.Cleanup(func() {
		for _, c := range d.conns {
			_ = c.Close()
		}
	})
	return d
}

func (d *dialer) ClientAt(addr string) (api.PeerClient, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.conns[addr]
	if c == nil {
		var err error
		if c, err = grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return nil, err
		}
		d.conns[addr] = c
	}
	return api.NewPeerClient(c), nil
}

// server answers Probe with an agent and Join with a function.
type server struct {
	api.UnimplementedPeerServer
	mu    sync.Mutex
	agent *Agent
	join  func(*api.JoinRequest) (*api.JoinResponse, error)
}

func (s *server) Probe(ctx context.Context, r *api.ProbeRequest) (*api.ProbeResponse, error) {
	s.mu.Lock()
	a := s.agent
	s.mu.Unlock()
	return a.HandleProbe(ctx, r)
}

func (s *server) Join(_ context.Context, r *api.JoinRequest) (*api.JoinResponse, error) {
	return s.join(r)
}

func (s *server) set(a *Agent) {
	s.mu.Lock()
	s.agent = a
	s.mu.Unlock()
}

// listen reserves an address; serve answers there.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func serve(t *testing.T, l net.Listener, s *server) {
	t.Helper()
	g := grpc.NewServer()
	api.RegisterPeerServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
}

type group struct {
	t       *testing.T
	first   map[string]string
	listen  map[string]net.Listener
	servers map[string]*server
}

func newGroup(t *testing.T, names ...string) *group {
	g := &group{t: t, first: map[string]string{}, listen: map[string]net.Listener{}, servers: map[string]*server{}}
	for _, n := range names {
		g.listen[n] = listen(t)
		g.first[n] = g.listen[n].Addr().String()
	}
	return g
}

// agent makes an agent for a name and lets it answer probes.
func (g *group) agent(name, life string, edit func(*Options)) *Agent {
	g.t.Helper()
	o := Options{
		Name: name, Node: keyspace.NodeID(life), Cluster: testCluster, First: g.first, ConfigHash: "h",
		Dialer: newDialer(g.t), MinPause: time.Millisecond, MaxPause: 20 * time.Millisecond,
	}
	if edit != nil {
		edit(&o)
	}
	a, err := NewAgent(o)
	if err != nil {
		g.t.Fatal(err)
	}
	if s := g.servers[name]; s != nil {
		s.set(a)
	} else if g.listen[name] != nil {
		s := &server{agent: a}
		g.servers[name] = s
		serve(g.t, g.listen[name], s)
	}
	return a
}

type outcome struct {
	d   Decision
	err error
}

// start runs an agent; a founder settles at once.
func start(t *testing.T, a *Agent) <-chan outcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	out := make(chan outcome, 1)
	go func() {
		d, err := a.Run(ctx)
		if err == nil && d.Action == Found {
			a.Settle(d.ClusterID, d.Members)
		}
		out <- outcome{d, err}
	}()
	return out
}

func (g *group) expect(out <-chan outcome, action Action) Decision {
	g.t.Helper()
	o := <-out
	if o.err != nil || o.d.Action != action {
		g.t.Fatalf("decided %+v, %v; want %v", o.d, o.err, action)
	}
	return o.d
}

// TestFirstStart: three members that start in any order, one much later, found
// one cluster; a wiped one joins, a newcomer too (DESIGN 5).
func TestFirstStart(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	a := start(t, g.agent("a", "a1", nil))
	b := start(t, g.agent("b", "b1", nil))
	early := g.agent("d", "d1", nil)
	select {
	case o := <-a:
		t.Fatalf("decided without c: %+v", o)
	case o := <-b:
		t.Fatalf("decided without c: %+v", o)
	default:
	}
	c := start(t, g.agent("c", "c1", nil))
	id := g.expect(a, Found).ClusterID
	for _, out := range []<-chan outcome{b, c} {
		if d := g.expect(out, Found); d.ClusterID != id || d.Members["b"] != "b1" {
			t.Fatalf("founded %+v, not %s", d, id)
		}
	}
	// The same directory again, before it stored anything: founds the same.
	if d := g.expect(start(t, g.agent("c", "c1", nil)), Found); d.ClusterID != id {
		t.Fatalf("founded %+v", d)
	}
	// Wiped.
	wiped := g.agent("b", "b2", nil)
	d := g.expect(start(t, wiped), Join)
	if d.ClusterID != id || fmt.Sprint(d.Through) != "[a c]" || len(wiped.Addresses(d.Through)) != 2 {
		t.Fatalf("joins %+v", d)
	}
	g.expect(start(t, early), Join)
}

// TestSettledAgentAnswers: a restarted member tells its cluster.
func TestSettledAgentAnswers(t *testing.T) {
	g := newGroup(t, "a")
	a := g.agent("a", "a1", func(o *Options) { o.ClusterID, o.Founded = "id", map[string]string{"a": "a1"} })
	r, err := a.HandleProbe(context.Background(), &api.ProbeRequest{ClusterName: testCluster})
	if err != nil || r.GetEmpty() || r.GetClusterId() != "id" || r.GetFirstMembers()["a"] != "a1" || r.GetLife() != "a1" {
		t.Fatalf("answer %v, %v", r, err)
	}
	if _, err := a.HandleProbe(context.Background(), &api.ProbeRequest{ClusterName: "other"}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("answers another cluster: %v", err)
	}
	if !strings.Contains(a.Status(), "id") {
		t.Fatalf("status %q", a.Status())
	}
}

// TestRunWaits: a member that is down is named in the status, and Run ends
// with its context.
func TestRunWaits(t *testing.T) {
	g := newGroup(t, "a", "b")
	_ = g.listen["b"].Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a := g.agent("a", "a1", func(o *Options) { o.Logger = slog.New(onStatus(cancel)) })
	_, err := a.Run(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "waiting for first members to answer: b (Unavailable") {
		t.Fatalf("Run: %v", err)
	}
}

// onStatus calls a function at each log record.
type onStatus func()

func (f onStatus) Enabled(context.Context, slog.Level) bool  { return true }
func (f onStatus) WithAttrs([]slog.Attr) slog.Handler        { return f }
func (f onStatus) WithGroup(string) slog.Handler             { return f }
func (f onStatus) Handle(context.Context, slog.Record) error { f(); return nil }

// TestJoin: the client asks one member after the other, follows hints, and
// does not give up on refusals.
func TestJoin(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	_ = g.listen["a"].Close() // a is down
	var mu sync.Mutex
	refusals := 0
	g.agent("b", "b1", nil)
	g.agent("c", "c1", nil)
	g.servers["b"].join = func(*api.JoinRequest) (*api.JoinResponse, error) {
		return &api.JoinResponse{RetryAt: g.first["c"]}, nil
	}
	g.servers["c"].join = func(r *api.JoinRequest) (*api.JoinResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if r.GetNodeName() != "d" || r.GetNodeId() != "d1" || r.GetClusterName() != testCluster || r.GetFormatVersion() == 0 || r.GetPeer() != "here:1" {
			return nil, fmt.Errorf("unexpected request %v", r)
		}
		if refusals++; refusals < 4 {
			return nil, fault.New(fault.Unavailable, "no quorum")
		}
		return &api.JoinResponse{ClusterId: "id", Replicas: []*api.JoinReplica{{Group: 1, Replica: 7}}}, nil
	}
	d := g.agent("d", "d1", nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := d.Join(ctx, &api.JoinRequest{Peer: "here:1"}, g.first["b"])
	if err != nil || r.GetClusterId() != "id" || len(r.GetReplicas()) != 1 {
		t.Fatalf("Join: %v, %v", r, err)
	}
}

// TestJoinEnds: circles and answers without sense are retried, nobody to ask
// is an error, and the context ends it.
func TestJoinEnds(t *testing.T) {
	g := newGroup(t, "b")
	g.agent("b", "b1", nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := 0
	g.servers["b"].join = func(*api.JoinRequest) (*api.JoinResponse, error) {
		if asked++; asked > 2*maxHops {
			cancel()
			return &api.JoinResponse{}, nil
		}
		return &api.JoinResponse{RetryAt: g.first["b"]}, nil
	}
	if _, err := g.agent("d", "d1", nil).Join(ctx, &api.JoinRequest{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Join: %v", err)
	}
	alone := g.agent("e", "e1", func(o *Options) { o.First = nil })
	if _, err := alone.Join(context.Background(), &api.JoinRequest{}); fault.CodeOf(err) != fault.InvalidArgument {
		t.Fatalf("Join with nobody to ask: %v", err)
	}
}
