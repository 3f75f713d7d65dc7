package ctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/progress"
)

// clusterView is the whole status with -o json.
type clusterView struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	// RecoveryEpoch is the highest that a node took part in.
	RecoveryEpoch uint64      `json:"recovery_epoch"`
	Nodes         []nodeView  `json:"nodes"`
	Groups        []groupView `json:"groups"`
	// leaders are what the leaders say of their groups.
	leaders map[uint32]*api.GroupStatus
	// moves are what the nodes that drive moves of slots say, by id.
	moves map[uint64]*api.SlotMoveProgress
}

type nodeView struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	GRPC     string `json:"grpc"`
	HTTP     string `json:"http"`
	Peer     string `json:"peer"`
	Gossip   string `json:"gossip"`
	Zone     string `json:"zone"`
	State    string `json:"state"` // ready, not ready or unreachable
	Heard    string `json:"gossip_state,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Version  string `json:"version,omitempty"`
	Format   uint32 `json:"format_version,omitempty"`
	UptimeMS int64  `json:"uptime_ms,omitempty"`
	Epoch    uint64 `json:"recovery_epoch,omitempty"`
	// ClockAheadMS is that of the median of all nodes.
	ClockAheadMS int64             `json:"clock_ahead_ms,omitempty"`
	ClockOff     bool              `json:"clock_off,omitempty"`
	Hides        bool              `json:"hides_replicas,omitempty"`
	Leads        int               `json:"leads"`
	Storage      *storageView      `json:"storage,omitempty"`
	Config       map[string]string `json:"effective_config,omitempty"`
}

type storageView struct {
	LSM    uint64 `json:"lsm_bytes"`
	Values uint64 `json:"value_log_bytes"`
	Raft   uint64 `json:"raft_log_bytes"`
	Delta  uint64 `json:"delta_bytes"`
	Budget uint64 `json:"memory_budget_bytes"`
}

// groupView is one group with the state of its replicas on all nodes.
type groupView struct {
	Group    uint32        `json:"group"`
	Leader   string        `json:"leader,omitempty"` // a node's name
	Term     uint64        `json:"term"`
	Commit   uint64        `json:"commit"`
	Copies   uint32        `json:"copies,omitempty"` // by the leader
	Replicas []replicaView `json:"replicas"`
}

type replicaView struct {
	Node    string `json:"node"`
	Role    string `json:"role"`
	Applied uint64 `json:"applied"`
	Lag     uint64 `json:"lag"`
}

func (a *app) statusCmd() *cobra.Command {
	var config bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show nodes, groups, leaders, applied indexes and storage", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := clusterStatus(ctx, c, a.opts.Timeout)
			if err != nil {
				return err
			}
			return a.showStatus(v, config)
		}),
	}
	cmd.Flags().BoolVar(&config, "config", false, "also show each node's effective settings")
	return cmd
}

// clusterStatus asks every node that any one node knows.
func clusterStatus(ctx context.Context, c *client.Client, timeout time.Duration) (clusterView, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return clusterView{}, err
	}
	slices.SortFunc(nodes, func(x, y *api.NodeInfo) int { return cmp.Compare(x.GetName(), y.GetName()) })
	answers, errs := make([]*api.StatusResponse, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			// A node that is down must not hold up the others' answers for long.
			ctx, cancel := context.WithTimeout(ctx, min(timeout, 3*time.Second))
			defer cancel()
			answers[i], errs[i] = c.StatusOf(ctx, n.GetId())
		})
	}
	wg.Wait()
	v := clusterView{}
	for i, n := range nodes {
		v.Nodes = append(v.Nodes, viewNode(n, answers[i], errs[i]))
		if s := answers[i]; errs[i] == nil {
			v.ClusterID, v.ClusterName = s.GetClusterId(), s.GetClusterName()
			v.RecoveryEpoch = max(v.RecoveryEpoch, s.GetRecoveryEpoch())
		}
	}
	v.Groups = viewGroups(nodes, answers)
	v.leaders = leadersOf(answers)
	v.moves = make(map[uint64]*api.SlotMoveProgress)
	for _, s := range answers {
		for _, p := range s.GetSlotMoves() {
			// Of a driver that was followed by another: what is further.
			if old := v.moves[p.GetId()]; old == nil || p.GetBytes() >= old.GetBytes() {
				v.moves[p.GetId()] = p
			}
		}
	}
	return v, nil
}

// leadersOf picks the leader of the highest term of each group.
func leadersOf(answers []*api.StatusResponse) map[uint32]*api.GroupStatus {
	leaders := map[uint32]*api.GroupStatus{}
	for _, s := range answers {
		for _, g := range s.GetGroups() {
			if g.GetRole() == "leader" && g.GetTerm() >= leaders[g.GetGroup()].GetTerm() {
				leaders[g.GetGroup()] = g
			}
		}
	}
	return leaders
}

func viewNode(n *api.NodeInfo, s *api.StatusResponse, err error) nodeView {
	v := nodeView{
		Name: n.GetName(), ID: n.GetId(), GRPC: n.GetGrpc(), HTTP: n.GetHttp(), Peer: n.GetPeer(), Gossip: n.GetGossip(),
		Zone: n.GetZone(), State: "ready", Heard: n.GetGossipState(),
	}
	if err != nil {
		v.State, v.Reason = "unreachable", strings.TrimPrefix(err.Error(), "kvstore: ")
		return v
	}
	if !s.GetReady() {
		v.State, v.Reason = "not ready", s.GetNotReadyReason()
	}
	v.Version, v.Format, v.UptimeMS, v.Config = s.GetVersion(), s.GetFormatVersion(), s.GetUptimeMs(), s.GetEffectiveConfig()
	v.Epoch, v.ClockAheadMS, v.ClockOff = s.GetRecoveryEpoch(), s.GetClockAheadMs(), s.GetClockOff()
	v.Hides = s.GetHidesReplicas()
	for _, g := range s.GetGroups() {
		if g.GetRole() == "leader" {
			v.Leads++
		}
	}
	if st := s.GetStorage(); st != nil {
		v.Storage = &storageView{st.GetLsmBytes(), st.GetValueLogBytes(), st.GetRaftLogBytes(), st.GetDeltaBytes(), st.GetMemoryBudgetBytes()}
	}
	return v
}

// viewGroups joins what the nodes say about each group. The leader is the one
// of the highest term.
func viewGroups(nodes []*api.NodeInfo, answers []*api.StatusResponse) []groupView {
	names := map[string]string{}
	for _, n := range nodes {
		names[n.GetId()] = n.GetName()
	}
	byID := map[uint32]*groupView{}
	for i, s := range answers {
		for _, g := range s.GetGroups() {
			v := byID[g.GetGroup()]
			if v == nil {
				v = &groupView{Group: g.GetGroup()}
				byID[g.GetGroup()] = v
			}
			if g.GetTerm() > v.Term || g.GetTerm() == v.Term && v.Leader == "" {
				v.Term, v.Leader = g.GetTerm(), names[g.GetLeaderNode()]
			}
			v.Commit = max(v.Commit, g.GetCommit())
			if g.GetTerm() == v.Term && g.GetCopies() > 0 {
				v.Copies = g.GetCopies()
			}
			v.Replicas = append(v.Replicas, replicaView{Node: nodes[i].GetName(), Role: g.GetRole(), Applied: g.GetApplied()})
		}
	}
	out := make([]groupView, 0, len(byID))
	for _, v := range byID {
		for i := range v.Replicas {
			if v.Replicas[i].Role != "witness" { // they are behind on purpose
				v.Replicas[i].Lag = v.Commit - min(v.Replicas[i].Applied, v.Commit)
			}
		}
		out = append(out, *v)
	}
	slices.SortFunc(out, func(x, y groupView) int { return cmp.Compare(x.Group, y.Group) })
	return out
}

func (a *app) showStatus(v clusterView, config bool) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(v)
	case formatRaw:
		for _, n := range v.Nodes {
			if _, err := fmt.Fprintf(a.Out, "%s %s\n", n.Name, n.State); err != nil {
				return err
			}
		}
		return nil
	}
	if err := a.fields("cluster", v.ClusterName, "id", v.ClusterID, "recovery epoch", epochText(v.RecoveryEpoch)); err != nil {
		return err
	}
	if err := a.section("NODE STATE GOSSIP GRPC HTTP ZONE VERSION UPTIME LEADS LSM VALUES RAFTLOG DELTA", nodeRows(v.Nodes)); err != nil {
		return err
	}
	if err := a.section("GROUP LEADER COPIES TERM COMMIT APPLIED", groupRows(v.Groups)); err != nil {
		return err
	}
	return a.showNotes(v.Nodes, config)
}

// epochText is "" for a cluster that was never recovered.
func epochText(epoch uint64) string {
	if epoch == 0 {
		return ""
	}
	return number(epoch)
}

func aheadText(ahead time.Duration) string {
	if ahead < 0 {
		return "behind the others'"
	}
	return "ahead of the others'"
}

// section is a table after an empty line.
func (a *app) section(headers string, rows [][]string) error {
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return a.table(headers, rows)
}

func nodeRows(nodes []nodeView) [][]string {
	rows := make([][]string, 0, len(nodes))
	size := func(n uint64) string { return progress.Bytes(int64(n)) }
	for _, n := range nodes {
		row := []string{n.Name, n.State, n.Heard, n.GRPC, n.HTTP, n.Zone, n.Version, "", number(int64(n.Leads)), "", "", "", ""}
		if n.UptimeMS > 0 {
			row[7] = (time.Duration(n.UptimeMS) * time.Millisecond).Round(time.Second).String()
		}
		if s := n.Storage; s != nil {
			row[9], row[10], row[11], row[12] = size(s.LSM), size(s.Values), size(s.Raft), size(s.Delta)
		}
		rows = append(rows, row)
	}
	return rows
}

func groupRows(groups []groupView) [][]string {
	rows := make([][]string, 0, len(groups))
	for _, g := range groups {
		applied := make([]string, len(g.Replicas))
		for i, r := range g.Replicas {
			applied[i] = fmt.Sprintf("%s:%d", r.Node, r.Applied)
			if r.Role == "witness" {
				applied[i] = r.Node + ":witness"
			}
			if r.Lag > 0 {
				applied[i] += fmt.Sprintf("(-%d)", r.Lag)
			}
		}
		copies := ""
		if g.Copies > 0 {
			copies = number(g.Copies)
		}
		rows = append(rows, []string{number(g.Group), g.Leader, copies, number(g.Term), number(g.Commit), strings.Join(applied, " ")})
	}
	return rows
}

// notes are what keeps a node from its work.
func (n *nodeView) notes() (notes []string) {
	if n.Reason != "" {
		notes = append(notes, printable(n.Reason))
	}
	if n.ClockOff {
		ahead := time.Duration(n.ClockAheadMS) * time.Millisecond
		notes = append(notes, fmt.Sprintf("its clock is %v %s; it leads nothing until that is mended", ahead.Abs().Round(100*time.Millisecond), aheadText(ahead)))
	}
	if n.Hides {
		notes = append(notes, "damage of its raft log hides which replicas lived there, and it takes no new ones; stop it and delete its data directory, it is then rebuilt from its peers")
	}
	return notes
}

// showNotes prints why nodes do not serve, and their settings when asked.
func (a *app) showNotes(nodes []nodeView, config bool) error {
	for _, n := range nodes {
		for _, note := range n.notes() {
			if _, err := fmt.Fprintf(a.Out, "\n%s: %s\n", n.Name, note); err != nil {
				return err
			}
		}
		if !config {
			continue
		}
		rows := make([][]string, 0, len(n.Config))
		for k, v := range n.Config {
			rows = append(rows, []string{n.Name, k, v})
		}
		slices.SortFunc(rows, func(x, y []string) int { return cmp.Compare(x[1], y[1]) })
		if err := a.section("NODE SETTING VALUE", rows); err != nil {
			return err
		}
	}
	return nil
}
