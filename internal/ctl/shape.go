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
	RecoveryEpoch     uint64          `json:"recovery_epoch"`
	Nodes             []shapeNodeView `json:"nodes"`
	Moves             []moveView      `json:"moves"`
	Copies            []copiesView    `json:"copies"`
	Held              []uint32        `json:"held_groups"`
	GivenUp           []givenUpView   `json:"given_up,omitempty"`
	Paused            bool            `json:"paused"`
	MaxMoves          uint32          `json:"max_moves"`
	CopyRate          uint64          `json:"copy_bytes_per_second"`
	Groups            []groupSlots    `json:"groups"`
	GroupsWanted      uint32          `json:"groups_wanted"`
	Split             string          `json:"split"`
	SlotMoves         []slotMoveView  `json:"slot_moves"`
	SlotsHeld         bool            `json:"slots_held"`
}

type shapeNodeView struct {
	Name     string  `json:"name"`
	ID       string  `json:"id"`
	Peer     string  `json:"peer"`
	Zone     string  `json:"zone,omitempty"`
	Role     string  `json:"role"`  // data or witness
	State    string  `json:"state"` // active, draining, or silent with how long
	DrainTo  string  `json:"drain_to,omitempty"`
	SilentMS uint64  `json:"silent_ms,omitempty"`
	Weight   float64 `json:"weight"`
	Priority int32   `json:"leader_priority"`
	Replicas uint32  `json:"replicas"`
	Target   uint32  `json:"target_replicas"`
	Leads    uint32  `json:"leads"`
	Prefer   uint32  `json:"preferred_leads"`
	// Held groups keep a node that is drained from giving up all it has.
	Held []uint32 `json:"waits_for_held_groups,omitempty"`
}

// copiesView is how many copies a group has of what was acknowledged, of so many
// voters with data, and how many witnesses vote.
type copiesView struct {
	Group     uint32 `json:"group"`
	Copies    uint32 `json:"copies"` // 0 while no leader knows
	Of        int    `json:"of"`
	Witnesses int    `json:"witnesses"`
}

func viewCopies(group uint32, leader *api.GroupStatus) copiesView {
	v := copiesView{Group: group, Copies: leader.GetCopies()}
	for _, r := range leader.GetReplicas() {
		switch r.GetRole() {
		case "voter":
			v.Of++
		case "witness":
			v.Witnesses++
		}
	}
	return v
}

// copiesLine says how many groups have fewer copies than voters with data.
func copiesLine(groups []copiesView) string {
	var single, fewer []string
	for _, g := range groups {
		switch {
		case g.Copies == 1 && g.Of > 1:
			single = append(single, number(g.Group))
		case g.Copies > 0 && int(g.Copies) < g.Of:
			fewer = append(fewer, number(g.Group))
		}
	}
	var parts []string
	if len(single) > 0 {
		parts = append(parts, "ONE COPY of groups "+strings.Join(single, " "))
	}
	if len(fewer) > 0 {
		parts = append(parts, "fewer than wanted of groups "+strings.Join(fewer, " "))
	}
	return strings.Join(parts, "; ")
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

// givenUpView is a copy of a group that did not come to an end.
type givenUpView struct {
	Group  uint32 `json:"group"`
	Node   string `json:"node"`
	Reason string `json:"reason"`
	Since  string `json:"since"`
	Until  string `json:"until,omitempty"` // the node may be tried again; empty: when it is heard from
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
		ClusterID: m.GetClusterId(), ClusterName: m.GetClusterName(), ReplicationFactor: m.GetReplicationFactor(), RecoveryEpoch: m.GetRecoveryEpoch(),
		Paused: m.GetBalance().GetPaused(), MaxMoves: m.GetBalance().GetMaxMoves(), CopyRate: m.GetBalance().GetCopyRate(),
		Moves: []moveView{}, Held: []uint32{},
		Groups: viewGroupSlots(m, status.Groups), GroupsWanted: m.GetBalance().GetGroupsWanted(), Split: m.GetBalance().GetSplit(),
		SlotMoves: viewSlotMoves(m, status.moves), SlotsHeld: m.GetBalance().GetHoldSlots(),
	}
	names := map[string]string{}
	for _, n := range m.GetNodes() {
		names[n.GetInfo().GetId()] = n.GetInfo().GetName()
		v.Nodes = append(v.Nodes, viewShapeNode(n, status))
	}
	for _, g := range m.GetGroups() {
		v.Copies = append(v.Copies, viewCopies(g.GetGroup(), status.leaders[g.GetGroup()]))
		if g.GetHeld() {
			v.Held = append(v.Held, g.GetGroup())
		}
		v.holdBack(g)
		for _, u := range g.GetGivenUp() {
			v.GivenUp = append(v.GivenUp, givenUpView{g.GetGroup(), cmp.Or(names[u.GetNodeId()], "(removed)"), u.GetReason(),
				milli(u.GetSinceMs()), milli(u.GetUntilMs())})
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
		Role: cmp.Or(n.GetInfo().GetRole(), "data"), State: n.GetState(), DrainTo: n.GetDrainTo(), SilentMS: n.GetSilentMs(), Weight: n.GetWeight(), Priority: n.GetLeaderPriority(),
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
		if r.GetRole() != "learner" {
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
	} else if atRest(v) {
		state = "at rest"
	}
	err := a.fields("cluster", v.ClusterName, "id", v.ClusterID, "copies", number(v.ReplicationFactor), "warning", copiesLine(v.Copies), "groups", v.groupsText(), "replicas", state,
		"at a time", number(v.MaxMoves)+" groups, "+progress.Bytes(int64(v.CopyRate))+"/s",
		"recovery epoch", epochText(v.RecoveryEpoch), "held", strings.Trim(fmt.Sprint(v.Held), "[]"))
	if err != nil {
		return err
	}
	if err := a.section("NODE ROLE STATE PEER ZONE WEIGHT PRIORITY REPLICAS TARGET LEADS PREFERRED", shapeRows(v.Nodes)); err != nil {
		return err
	}
	if rows := heldRows(v.Nodes); len(rows) > 0 {
		if err := a.section("DRAINED HELD RELEASE", rows); err != nil {
			return err
		}
	}
	if rows := givenUpRows(v.GivenUp); len(rows) > 0 {
		if err := a.section("GROUP GAVE-UP REASON SINCE AGAIN", rows); err != nil {
			return err
		}
	}
	if len(v.Moves) > 0 {
		if err := a.section("GROUP FROM TO REASON STEP DONE RATE ETA", moveRows(v.Moves)); err != nil {
			return err
		}
	}
	if len(v.SlotMoves) == 0 {
		return nil
	}
	return a.section(slotMoveHeaders, slotMoveRows(v.SlotMoves))
}

func shapeRows(nodes []shapeNodeView) [][]string {
	rows := make([][]string, 0, len(nodes))
	for _, n := range nodes {
		state := n.State
		if n.DrainTo != "" {
			state += " to " + n.DrainTo
		}
		if n.SilentMS > 0 {
			state += ", silent for " + (time.Duration(n.SilentMS) * time.Millisecond).Round(100*time.Millisecond).String()
		}
		rows = append(rows, []string{n.Name, n.Role, state, n.Peer, n.Zone, fmt.Sprintf("%g", n.Weight), fmt.Sprint(n.Priority),
			number(n.Replicas), number(n.Target), number(n.Leads), number(n.Prefer)})
	}
	return rows
}

func givenUpRows(all []givenUpView) (rows [][]string) {
	for _, u := range all {
		rows = append(rows, []string{number(u.Group), u.Node, u.Reason, u.Since, cmp.Or(u.Until, "when it is heard from")})
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
