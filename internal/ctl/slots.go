package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/progress"
)

// slotsView is the slot map with what moves.
type slotsView struct {
	Epoch  uint64         `json:"epoch"`
	Groups []slotGroup    `json:"groups"`
	Moves  []slotMoveView `json:"moves"`
	Held   bool           `json:"held"`
}

// slotGroup is a data group with the ranges that it owns.
type slotGroup struct {
	Group uint32 `json:"group"`
	Count uint32 `json:"count"`
	Slots string `json:"slots"`
}

// slotMoveView is a move of slots with what the node that drives it says.
type slotMoveView struct {
	ID        uint64  `json:"id"`
	From      uint32  `json:"from"`
	To        uint32  `json:"to"`
	Count     uint32  `json:"count"`
	Slots     string  `json:"slots"`
	Reason    string  `json:"reason,omitempty"`
	Since     string  `json:"since,omitempty"`
	Cancelled bool    `json:"cancelled"`
	Step      string  `json:"step"`
	Percent   float64 `json:"percent"`
	Copied    uint64  `json:"copied_bytes"`
	Total     uint64  `json:"copy_bytes"`
	Rate      uint64  `json:"bytes_per_second"`
	ETAMillis uint64  `json:"eta_ms"`
}

func (a *app) slotsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "slots", Short: "Show which group owns which slots, and the slots that move", Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error { return a.showSlots(ctx, c) }),
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "cancel ID|all", Short: "Undo moves whose slots have not left their group, and plan none until release", Args: usageArgs(cobra.ExactArgs(1)),
			RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
				req := &api.CancelSlotMoveRequest{All: args[0] == "all"}
				if !req.All {
					id, err := strconv.ParseUint(args[0], 10, 64)
					if err != nil || id == 0 {
						return usagef("move %q: want its id, as kvctl slots shows it, or all", args[0])
					}
					req.Id = id
				}
				if _, err := c.CancelSlotMove(ctx, req); err != nil {
					return err
				}
				return a.showSlots(ctx, c)
			}),
		},
		&cobra.Command{
			Use: "release", Short: "Plan moves of slots again", Args: usageArgs(cobra.NoArgs),
			RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
				held := false
				if _, err := c.Configure(ctx, &api.ConfigureRequest{HoldSlots: &held}); err != nil {
					return err
				}
				return a.showSlots(ctx, c)
			}),
		})
	return cmd
}

func (a *app) showSlots(ctx context.Context, c *client.Client) error {
	m, err := c.Members(ctx)
	if err != nil {
		return err
	}
	status, err := clusterStatus(ctx, c, a.opts.Timeout)
	if err != nil {
		return err
	}
	v := slotsView{
		Epoch: m.GetSlotEpoch(), Groups: make([]slotGroup, 0, len(m.GetSlotOwners())),
		Moves: viewSlotMoves(m, status.moves), Held: m.GetBalance().GetHoldSlots(),
	}
	rows := make([][]string, 0, len(m.GetSlotOwners()))
	for _, o := range m.GetSlotOwners() {
		v.Groups = append(v.Groups, slotGroup{Group: o.GetGroup(), Count: o.GetCount(), Slots: o.GetSlots()})
		rows = append(rows, []string{number(o.GetGroup()), number(o.GetCount()), o.GetSlots()})
	}
	if a.format(formatTable) == formatJSON {
		return a.json(v)
	}
	if err := a.table("GROUP COUNT SLOTS", rows); err != nil {
		return err
	}
	if len(v.Moves) > 0 {
		if err := a.section(slotMoveHeaders, slotMoveRows(v.Moves)); err != nil {
			return err
		}
	}
	if v.Held {
		_, err = fmt.Fprintf(a.Out, "\n%s\n", slotsHeld)
	}
	return err
}

// slotsHeld says what a cancellation left behind.
const slotsHeld = "no move of slots is planned until kvctl slots release"

// viewSlotMoves joins the moves that are to happen with how far they are.
func viewSlotMoves(m *api.MembersResponse, known map[uint64]*api.SlotMoveProgress) []slotMoveView {
	out := make([]slotMoveView, 0, len(m.GetSlotMoves()))
	for _, s := range m.GetSlotMoves() {
		v := slotMoveView{
			ID: s.GetId(), From: s.GetFrom(), To: s.GetTo(), Count: s.GetCount(), Slots: s.GetSlots(),
			Reason: s.GetReason(), Since: milli(s.GetSinceMs()), Cancelled: s.GetCancelled(), Step: "waiting to begin",
		}
		if p := known[v.ID]; p != nil {
			v.Step, v.Copied, v.Total, v.Rate, v.ETAMillis = p.GetPhase(), p.GetBytes(), p.GetTotal(), p.GetRate(), p.GetEtaMs()
			if v.Total > 0 {
				v.Percent = min(100, 100*float64(v.Copied)/float64(v.Total))
			}
		}
		if v.Cancelled {
			v.Step = "cancelled, " + v.Step
		}
		out = append(out, v)
	}
	return out
}

const slotMoveHeaders = "MOVE FROM TO COUNT REASON STEP DONE RATE ETA"

func slotMoveRows(moves []slotMoveView) [][]string {
	rows := make([][]string, 0, len(moves))
	for _, m := range moves {
		row := []string{number(m.ID), number(m.From), number(m.To), number(m.Count), m.Reason, m.Step, "", "", ""}
		if m.Total > 0 {
			row[6] = fmt.Sprintf("%.0f%%", m.Percent)
		}
		if m.Rate > 0 {
			row[7], row[8] = progress.Bytes(int64(m.Rate))+"/s", m.eta()
		}
		rows = append(rows, row)
	}
	return rows
}

func (m slotMoveView) eta() string {
	return (time.Duration(m.ETAMillis) * time.Millisecond).Round(100 * time.Millisecond).String()
}

// line is a move in one line.
func (m slotMoveView) line() string {
	s := fmt.Sprintf("move %d, %d slots from group %d to %d: %s", m.ID, m.Count, m.From, m.To, m.Step)
	if m.Total > 0 {
		s += fmt.Sprintf(", %.0f %% of %s", m.Percent, progress.Bytes(int64(m.Total)))
	}
	if m.Rate > 0 {
		s += fmt.Sprintf(", %s/s, %s left", progress.Bytes(int64(m.Rate)), m.eta())
	}
	return s
}

// groupSlots is a data group in the whole cluster's view.
type groupSlots struct {
	Group  uint32 `json:"group"`
	Slots  uint32 `json:"slots"`
	Leader string `json:"leader,omitempty"` // a node's name
}

// viewGroupSlots are the data groups with who leads them.
func viewGroupSlots(m *api.MembersResponse, groups []groupView) []groupSlots {
	leaders := map[uint32]string{}
	for _, g := range groups {
		leaders[g.Group] = g.Leader
	}
	out := make([]groupSlots, 0, len(m.GetSlotOwners()))
	for _, o := range m.GetSlotOwners() {
		out = append(out, groupSlots{Group: o.GetGroup(), Slots: o.GetCount(), Leader: leaders[o.GetGroup()]})
	}
	return out
}

// groupsText says how many data groups there are and will be.
func (v *shapeView) groupsText() string {
	s := number(uint32(len(v.Groups)))
	if v.GroupsWanted > uint32(len(v.Groups)) {
		s += fmt.Sprintf(" of %d", v.GroupsWanted)
	}
	s += ", split " + v.Split
	if v.SlotsHeld {
		s += ", held"
	}
	return strings.TrimSuffix(s, ", split ")
}

// showGroups prints the data groups.
func (a *app) showGroups(v shapeView) error {
	if a.format(formatTable) == formatJSON || len(v.Groups) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(v.Groups))
	for _, g := range v.Groups {
		rows = append(rows, []string{number(g.Group), number(g.Slots), g.Leader})
	}
	return a.section("GROUP SLOTS LEADER", rows)
}

// grown: there are as many groups as wanted, and none owns much more than
// others.
func grown(groups uint32) func(shapeView) bool {
	return func(v shapeView) bool {
		if !atRest(v) || uint32(len(v.Groups)) < groups {
			return false
		}
		least, most := v.Groups[0].Slots, uint32(0)
		for _, g := range v.Groups {
			least, most = min(least, g.Slots), max(most, g.Slots)
		}
		return most-least <= 1
	}
}
