package ctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/progress"
)

// shapeView is what every node holds and what moves.
type shapeView struct {
	ClusterID         string          `json:"cluster_id"`
	ClusterName       string          `json:"cluster_name"`
	ReplicationFactor uint32          `json:"replication_factor"`
	Nodes             []shapeNodeView `json:"nodes"`
	Moves             []moveView      `json:"moves"`
	Held              []uint32        `json:"held_groups"`
	Paused            bool            `json:"paused"`
	MaxMoves          uint32          `json:"max_moves"`
	CopyRate          uint64          `json:"copy_bytes_per_second"`
}

type shapeNodeView struct {
	Name     string  `json:"name"`
	ID       string  `json:"id"`
	Peer     string  `json:"peer"`
	Zone     string  `json:"zone,omitempty"`
	State    string  `json:"state"` // active, draining, or silent with how long
	SilentMS uint64  `json:"silent_ms,omitempty"`
	Weight   float64 `json:"weight"`
	Priority int32   `json:"leader_priority"`
	Replicas uint32  `json:"replicas"`
	Target   uint32  `json:"target_replicas"`
	Leads    uint32  `json:"leads"`
	Prefer   uint32  `json:"preferred_leads"`
}

// moveView is a group on its way.
type moveView struct {
	Group  uint32   `json:"group"`
	From   []string `json:"from"`
	To     []string `json:"to"`
	Reason string   `json:"reason,omitempty"`
	Since  string   `json:"since,omitempty"`
	// Step is what happens now; Percent and ETA are of a copy.
	Step      string  `json:"step"`
	Percent   float64 `json:"percent"`
	Copied    uint64  `json:"copied_bytes"`
	Total     uint64  `json:"copy_bytes"`
	Rate      uint64  `json:"bytes_per_second"`
	ETAMillis int64   `json:"eta_ms"`
}

// shape asks any node for the plan and every node for what it leads.
func shape(ctx context.Context, c *client.Client, timeout time.Duration) (shapeView, error) {
	m, err := c.Members(ctx)
	if err != nil {
		return shapeView{}, err
	}
	status, err := clusterStatus(ctx, c, timeout)
	if err != nil {
		return shapeView{}, err
	}
	v := shapeView{
		ClusterID: m.GetClusterId(), ClusterName: m.GetClusterName(), ReplicationFactor: m.GetReplicationFactor(),
		Paused: m.GetBalance().GetPaused(), MaxMoves: m.GetBalance().GetMaxMoves(), CopyRate: m.GetBalance().GetCopyRate(),
		Moves: []moveView{}, Held: []uint32{},
	}
	names := map[string]string{}
	for _, n := range m.GetNodes() {
		names[n.GetInfo().GetId()] = n.GetInfo().GetName()
		v.Nodes = append(v.Nodes, viewShapeNode(n, status))
	}
	for _, g := range m.GetGroups() {
		if g.GetHeld() {
			v.Held = append(v.Held, g.GetGroup())
		}
		if move, ok := viewMove(g, names, status.leaders[g.GetGroup()]); ok {
			v.Moves = append(v.Moves, move)
		}
	}
	return v, nil
}

func viewShapeNode(n *api.ClusterNode, status clusterView) shapeNodeView {
	v := shapeNodeView{
		Name: n.GetInfo().GetName(), ID: n.GetInfo().GetId(), Peer: n.GetInfo().GetPeer(), Zone: n.GetInfo().GetZone(),
		State: n.GetState(), SilentMS: n.GetSilentMs(), Weight: n.GetWeight(), Priority: n.GetLeaderPriority(),
		Replicas: n.GetReplicas(), Target: n.GetTargetReplicas(), Prefer: n.GetPreferredLeads(),
	}
	for _, s := range status.Nodes {
		if s.ID == v.ID {
			v.Leads = uint32(s.Leads)
		}
	}
	return v
}

// viewMove describes a group whose voters are not where they should be.
func viewMove(g *api.GroupPlacement, names map[string]string, leader *api.GroupStatus) (moveView, bool) {
	v := moveView{Group: g.GetGroup(), Reason: g.GetReason(), Since: milli(g.GetSinceMs())}
	replicas := g.GetReplicas()
	if leader != nil {
		replicas = leader.GetReplicas() // knows first
	}
	name := func(id string) string { return cmp.Or(names[id], "(removed)") }
	var voters []string
	var learner *api.ReplicaInfo
	for _, r := range replicas {
		if r.GetRole() == "voter" {
			voters = append(voters, r.GetNodeId())
			v.From = append(v.From, name(r.GetNodeId()))
		} else {
			learner = r
		}
	}
	for _, id := range g.GetTarget() {
		v.To = append(v.To, name(id))
	}
	if learner == nil && sameNodes(voters, g.GetTarget()) {
		return v, false
	}
	v.step(g, voters, learner, leader, name)
	return v, true
}

func sameNodes(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// step names what happens now.
func (v *moveView) step(g *api.GroupPlacement, voters []string, learner *api.ReplicaInfo, leader *api.GroupStatus, name func(string) string) {
	switch {
	case leader == nil:
		v.Step = "no leader answers"
	case learner == nil && !slices.ContainsFunc(g.GetTarget(), func(id string) bool { return !slices.Contains(voters, id) }):
		v.Step = "removing a voter"
	case learner == nil:
		v.Step = "waiting to begin"
	case learner.GetCopyBytes() > 0:
		v.Step = "copying to " + name(learner.GetNodeId())
		v.Copied, v.Total, v.Rate = learner.GetCopiedBytes(), learner.GetCopyBytes(), learner.GetCopyRate()
		v.Percent = 100 * float64(v.Copied) / float64(v.Total)
		if v.Rate > 0 {
			v.ETAMillis = int64(float64(v.Total-v.Copied) / float64(v.Rate) * 1000)
		}
	case learner.GetMatch() == 0:
		v.Step = "reaching " + name(learner.GetNodeId())
	default:
		v.Step = name(learner.GetNodeId()) + " catches up"
		v.Percent = 100 * float64(learner.GetMatch()) / float64(max(leader.GetCommit(), 1))
	}
}

// line is a move in one line.
func (v moveView) line() string {
	s := fmt.Sprintf("group %d: %s", v.Group, v.Step)
	if v.Total > 0 {
		s += fmt.Sprintf(", %.0f %% of %s, %s/s, %s left", v.Percent, progress.Bytes(int64(v.Total)),
			progress.Bytes(int64(v.Rate)), v.eta())
	}
	return s
}

func (v moveView) eta() string {
	if v.Rate == 0 {
		return "?"
	}
	return (time.Duration(v.ETAMillis) * time.Millisecond).Round(100 * time.Millisecond).String()
}

func (a *app) showShape(v shapeView) error {
	if a.format(formatTable) == formatJSON {
		return a.json(v)
	}
	state := "moving"
	if v.Paused {
		state = "paused"
	} else if len(v.Moves) == 0 {
		state = "at rest"
	}
	err := a.fields("cluster", v.ClusterName, "id", v.ClusterID, "copies", number(v.ReplicationFactor), "replicas", state,
		"at a time", number(v.MaxMoves)+" groups, "+progress.Bytes(int64(v.CopyRate))+"/s",
		"held", strings.Trim(fmt.Sprint(v.Held), "[]"))
	if err != nil {
		return err
	}
	if err := a.section("NODE STATE PEER ZONE WEIGHT PRIORITY REPLICAS TARGET LEADS PREFERRED", shapeRows(v.Nodes)); err != nil {
		return err
	}
	if len(v.Moves) == 0 {
		return nil
	}
	return a.section("GROUP FROM TO REASON STEP DONE RATE ETA", moveRows(v.Moves))
}

func shapeRows(nodes []shapeNodeView) [][]string {
	rows := make([][]string, 0, len(nodes))
	for _, n := range nodes {
		state := n.State
		if n.SilentMS > 0 {
			state += ", silent for " + (time.Duration(n.SilentMS) * time.Millisecond).Round(100*time.Millisecond).String()
		}
		rows = append(rows, []string{n.Name, state, n.Peer, n.Zone, fmt.Sprintf("%g", n.Weight), fmt.Sprint(n.Priority),
			number(n.Replicas), number(n.Target), number(n.Leads), number(n.Prefer)})
	}
	return rows
}

func moveRows(moves []moveView) [][]string {
	rows := make([][]string, 0, len(moves))
	for _, m := range moves {
		row := []string{number(m.Group), strings.Join(m.From, ","), strings.Join(m.To, ","), m.Reason, m.Step, "", "", ""}
		if m.Percent > 0 {
			row[5] = fmt.Sprintf("%.0f%%", m.Percent)
		}
		if m.Total > 0 {
			row[6], row[7] = progress.Bytes(int64(m.Rate))+"/s", m.eta()
		}
		rows = append(rows, row)
	}
	return rows
}
