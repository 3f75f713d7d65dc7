package ctl

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kvstore/client"
)

// movePoll is the time between looks at moves.
const movePoll = 500 * time.Millisecond

// settleLooks in a row must find a change done: it shows in the plan one round
// of the balancer later.
const settleLooks = 4

// showOrWait shows the shape once, or how it changes until done says so.
func (a *app) showOrWait(ctx context.Context, c *client.Client, wait bool, done func(shapeView) bool) error {
	return a.showOrFollow(ctx, c, wait, func(v shapeView) (bool, error) { return done(v), nil })
}

// showOrFollow shows the shape once, or how it changes until end says that it is
// done, or that it cannot be with an error.
func (a *app) showOrFollow(ctx context.Context, c *client.Client, wait bool, end func(shapeView) (bool, error)) error {
	v, err := shape(ctx, c, a.opts.Timeout)
	if err != nil || !wait {
		if err == nil {
			err = a.showShape(v)
		}
		return err
	}
	if v, err = a.follow(ctx, c, v, end); err != nil {
		return err
	}
	return a.showShape(v)
}

// follow looks again and again and says what is new, until settleLooks in a row
// found an end.
func (a *app) follow(ctx context.Context, c *client.Client, v shapeView, end func(shapeView) (bool, error)) (shapeView, error) {
	t := time.NewTicker(movePoll)
	defer t.Stop()
	said := map[string]string{}
	for looks := 0; ; {
		ended, err := end(v)
		if looks++; !ended && err == nil {
			looks = 0
		}
		if err := a.sayNews(v, said); err != nil {
			return v, err
		}
		if looks == settleLooks {
			return v, err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return v, ctx.Err()
		}
		if next, err := shape(ctx, c, a.opts.Timeout); err == nil { // an election may be under way
			v = next
		}
	}
}

// sayNews prints of every subject what was not said of it last.
func (a *app) sayNews(v shapeView, said map[string]string) error {
	for _, n := range v.news() {
		if said[n[0]] == n[1] {
			continue
		}
		said[n[0]] = n[1]
		if _, err := fmt.Fprintln(a.Err, n[1]); err != nil {
			return err
		}
	}
	return nil
}

// news is one line on each move, and on what keeps moves from beginning.
func (v shapeView) news() (lines [][2]string) {
	if v.Paused {
		lines = append(lines, [2]string{"paused", "moves are paused; go on with: kvctl balance resume"})
	}
	for _, n := range v.Nodes {
		for _, g := range n.Held {
			lines = append(lines, [2]string{fmt.Sprint("held ", g, " ", n.Name),
				fmt.Sprintf("group %d is held and stays on %s; let it go with: %s", g, n.Name, releaseOf(g))})
		}
	}
	for _, u := range v.GivenUp {
		lines = append(lines, [2]string{fmt.Sprint("given up ", u.Group, " ", u.Node),
			fmt.Sprintf("group %d: the copy to %s was given up: %s", u.Group, u.Node, u.Reason)})
	}
	for _, m := range v.Moves {
		lines = append(lines, [2]string{fmt.Sprint("group ", m.Group), m.line()})
	}
	for _, m := range v.SlotMoves {
		lines = append(lines, [2]string{fmt.Sprint("move ", m.ID), m.line()})
	}
	return lines
}

// atRest: nothing moves, and no group is to be founded.
func atRest(v shapeView) bool {
	return len(v.Moves) == 0 && len(v.SlotMoves) == 0 && len(v.Groups) >= int(v.GroupsWanted)
}

// copied: every group that may move has as many copies as wanted, or as there are
// nodes for, and done. That nothing moves is not enough: the plan follows a little
// later. Groups go on naming dead members where nodes are too few.
func copied(factor uint32, done func(shapeView) bool) func(shapeView) bool {
	return func(v shapeView) bool {
		var nodes uint32
		for _, n := range v.Nodes {
			if n.State == "active" && n.Role == "data" {
				nodes++
			}
		}
		for _, c := range v.Copies {
			if of := uint32(c.Of); !slices.Contains(v.Held, c.Group) && (of < min(factor, nodes) || of > factor) {
				return false
			}
		}
		return done(v)
	}
}
