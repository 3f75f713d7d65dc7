package membership

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Dialer makes clients for peer addresses (transport.Transport).
type Dialer interface {
	ClientAt(addr string) (api.PeerClient, error)
}

// Options of an Agent.
type Options struct {
	// Name and Node identify this node; Node is also the life of its data
	// directory.
	Name string
	Node keyspace.NodeID
	// Cluster is the configured name of the cluster.
	Cluster string
	// First are the peer addresses of the first members by name, this node's
	// own included when it is one.
	First map[string]string
	// ConfigHash of the settings all first members share.
	ConfigHash string
	// ClusterID and Founded are what an earlier run stored, if the data
	// directory is not empty.
	ClusterID string
	Founded   map[string]string
	// Epoch returns the last recovery of this node's cluster; nil for none.
	Epoch func() uint64

	Dialer Dialer
	Logger *slog.Logger

	// ProbeTimeout bounds one probe; 2 s.
	ProbeTimeout time.Duration
	// JoinTimeout bounds one request to join; 15 s.
	JoinTimeout time.Duration
	// MinPause and MaxPause bound the jittered pause between rounds of probes
	// or requests; 50 ms and 500 ms.
	MinPause, MaxPause time.Duration
}

// Agent probes the first members for an empty node and answers the probes of
// others for as long as the node runs.
type Agent struct {
	o Options

	mu sync.Mutex
	// sees is what probes are told while this node is empty; frozen once
	// founding was decided. clusterID is set when it is not empty any more. mu
	// must be held.
	sees      map[string]string
	frozen    bool
	clusterID string
	founded   map[string]string
	status    string
	logged    time.Time // when status was last logged
}

// NewAgent returns an agent; it starts nothing.
func NewAgent(o Options) (*Agent, error) {
	if o.Name == "" || o.Node == "" || o.Dialer == nil {
		return nil, fmt.Errorf("membership: options need a name, a node id and a dialer (name %q, node %q)", o.Name, o.Node)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		v         *time.Duration
		otherwise time.Duration
	}{{&o.ProbeTimeout, 2 * time.Second}, {&o.JoinTimeout, 15 * time.Second}, {&o.MinPause, 50 * time.Millisecond}, {&o.MaxPause, 500 * time.Millisecond}} {
		if *d.v <= 0 {
			*d.v = d.otherwise
		}
	}
	a := &Agent{o: o, status: "not started"}
	if o.ClusterID != "" {
		a.Settle(o.ClusterID, o.Founded)
	}
	return a, nil
}

// Settle is called once what was decided is stored on disk: the node is not
// empty any more, and probes are told so. founded is nil after a join.
func (a *Agent) Settle(clusterID string, founded map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clusterID != "" && a.clusterID != clusterID {
		panic(fmt.Sprintf("membership: cluster id changes from %q to %q", a.clusterID, clusterID))
	}
	a.clusterID, a.founded = clusterID, maps.Clone(founded)
	a.status = "member of cluster " + clusterID
}

// Status says what the agent waits for, for readiness and operators.
func (a *Agent) Status() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// HandleProbe serves Peer.Probe. A node of another cluster name is refused with
// fault.FailedPrecondition.
func (a *Agent) HandleProbe(_ context.Context, req *api.ProbeRequest) (*api.ProbeResponse, error) {
	if req.GetClusterName() != a.o.Cluster {
		return nil, fault.New(fault.FailedPrecondition, "node is configured for another cluster",
			"cluster", a.o.Cluster, "actual", req.GetClusterName())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &api.ProbeResponse{
		Empty:      a.clusterID == "",
		NodeName:   a.o.Name,
		Life:       string(a.o.Node),
		ClusterId:  a.clusterID,
		ConfigHash: a.o.ConfigHash,
	}
	if r.Empty {
		r.SeenMembers = maps.Clone(a.sees)
	} else {
		r.FirstMembers = maps.Clone(a.founded)
		if a.o.Epoch != nil {
			r.RecoveryEpoch = a.o.Epoch()
		}
	}
	return r, nil
}

// Run probes until the answers decide, and returns Found or Join. It only ends
// early with ctx. For a node that is not empty it panics: there is nothing to
// decide.
func (a *Agent) Run(ctx context.Context) (Decision, error) {
	p := pauser{min: a.o.MinPause, max: a.o.MaxPause}
	for {
		answers := a.probeAll(ctx)
		if ctx.Err() != nil {
			return Decision{}, fmt.Errorf("probing first members (%s): %w", a.Status(), ctx.Err())
		}
		d, progress := a.decide(answers)
		if d.Action != Wait {
			a.o.Logger.Info("decided how to start", "action", d.Action.String(), "cluster_id", d.ClusterID, "reason", d.Reason)
			return d, nil
		}
		if progress {
			p.reset()
		}
		if err := p.wait(ctx); err != nil {
			return Decision{}, fmt.Errorf("probing first members (%s): %w", a.Status(), err)
		}
	}
}

// decide judges one round. What this node sees and says changes with the
// decision, in one step. progress reports whether it sees something new.
func (a *Agent) decide(answers map[string]Answer) (d Decision, progress bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clusterID != "" || a.frozen {
		panic(fmt.Sprintf("membership: deciding twice (cluster %q)", a.clusterID))
	}
	d = Decide(Self{
		Name:       a.o.Name,
		Life:       string(a.o.Node),
		Cluster:    a.o.Cluster,
		First:      slices.Collect(maps.Keys(a.o.First)),
		ConfigHash: a.o.ConfigHash,
		Sees:       a.sees,
	}, answers)
	progress = !maps.Equal(a.sees, d.Sees)
	a.sees = d.Sees
	a.frozen = d.Action != Wait
	a.note(d.Reason)
	return d, progress
}

// logEvery is the shortest interval at which changes of status are logged.
const logEvery = 5 * time.Second

// note keeps a reason, and logs it when it is new and the last line is old
// enough. mu must be held.
func (a *Agent) note(reason string) {
	changed := a.status != reason
	a.status = reason
	if changed && time.Since(a.logged) >= logEvery {
		a.logged = time.Now()
		a.o.Logger.Info("cluster membership", "status", reason)
	}
}
