package balancer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Giving up. While a group has a learner nothing else begins (Decide), so one
// whose node is dead, full or too slow would keep its group where it is for
// ever, and with it one of the places of Balance.MaxMoves. The leader of the
// group watches its learner. When that made no progress for a bounded time, it
// notes the node with the reason in the group's record, and takes the learner
// out. As long as the note stands, nobody begins to copy the group to that node,
// and the placement looks for another (avoid.go); where there is none, the old
// replica stays. A note ends after a while, or once a node that was silent is
// heard from. What a leader has seen of a learner is not kept: a new leader is
// as patient as the last one.
const (
	// stillFor is how long a learner may stay where it is; restarts of its node
	// are shorter.
	stillFor = 2 * time.Minute
	// behindFor is how long a learner that follows may come no nearer to the
	// commit, and a copy that runs may stand still: the transport ends one that
	// stalls, but not one that takes long to be made durable.
	behindFor = 10 * time.Minute
	// mostCopies are begun for a learner; more mean that the log does not reach
	// back to the last one's end, or that its node refuses them.
	mostCopies = 5
	// avoidFor is how long a node that is alive gets no copy of the group.
	avoidFor = 10 * time.Minute
)

// learnerWatch is what a leader saw of its group's learner. Only the loop uses it.
type learnerWatch struct {
	replica keyspace.ReplicaID
	match   keyspace.Index
	sent    int64
	copies  int
	lag     keyspace.Index // the lowest
	// moved is when match or sent changed last, nearer when lag did or did not
	// count; both on env.Clock.Mono.
	moved, nearer time.Duration
}

// newLearnerWatch begins to watch now.
func newLearnerWatch(id keyspace.ReplicaID, now time.Duration) *learnerWatch {
	return &learnerWatch{replica: id, lag: ^keyspace.Index(0), moved: now, nearer: now}
}

// look takes in how far the learner is and returns why it is given up, "" as
// long as it is not. excused says that it cannot move, for no reason of its own.
func (w *learnerWatch) look(p host.Progress, commit keyspace.Index, now time.Duration, excused bool) (reason string) {
	copying, lag := p.Copy.Total > 0, commit-min(p.Match, commit)
	if copying && (w.sent == 0 || p.Copy.Sent < w.sent) && p.Copy.Sent > 0 {
		w.copies++
	}
	if excused || p.Match != w.match || p.Copy.Sent != w.sent {
		w.moved = now
	}
	if excused || copying || lag < w.lag {
		w.lag, w.nearer = min(w.lag, lag), now
	}
	w.match, w.sent = p.Match, p.Copy.Sent
	patience := stillFor
	if copying {
		patience = behindFor
	}
	switch {
	case w.copies > mostCopies:
		return fmt.Sprintf("%d copies did not suffice", mostCopies)
	case now-w.moved >= patience && !p.Active:
		return fmt.Sprintf("the node did not answer for %v", patience)
	case now-w.moved >= patience:
		return fmt.Sprintf("no progress for %v", patience)
	case now-w.nearer >= behindFor:
		return fmt.Sprintf("it does not catch up: no nearer than %d entries for %v", w.lag, behindFor)
	}
	return ""
}

// watchLearners looks at the learners of the groups that this node leads.
func (b *Balancer) watchLearners(led []host.GroupStatus, m *router.Map) {
	now, sending := b.o.Clock.Mono(), sendsCopies(led)
	watched := make(map[keyspace.GroupID]*learnerWatch)
	for i := range led {
		g := &led[i]
		at := slices.IndexFunc(g.Members, func(m format.Member) bool { return m.Learner })
		if at < 0 {
			continue
		}
		learner := g.Members[at]
		w := b.watches[g.Group]
		if w == nil || w.replica != learner.Replica {
			w = newLearnerWatch(learner.Replica, now)
		}
		watched[g.Group] = w
		p := g.Progress[learner.Replica]
		waits := p.Active && p.Copy.Sent == 0 && sending // for its turn
		if reason := w.look(p, g.Commit, now, m.Balance.Paused || waits || caughtUp(g, learner.Replica)); reason != "" {
			b.giveUp(g, learner.Node, reason)
		}
	}
	b.watches = watched
}

func sendsCopies(led []host.GroupStatus) bool {
	return slices.ContainsFunc(led, func(g host.GroupStatus) bool {
		for _, p := range g.Progress {
			if p.Copy.Sent > 0 {
				return true
			}
		}
		return false
	})
}

// giveUp notes that a node gets no replica of a group for now.
func (b *Balancer) giveUp(g *host.GroupStatus, id keyspace.NodeID, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	notes := b.gaveUp[g.Group]
	if slices.ContainsFunc(notes, func(u router.GivenUp) bool { return u.Node == id }) {
		return
	}
	u := router.GivenUp{Node: id, Reason: reason, Since: b.o.Clock.Wall()}
	if b.o.Silent(id) == 0 {
		u.Until = u.Since + avoidFor.Milliseconds()
	}
	b.o.Logger.Warn("a copy is given up", "group", g.Group, "to", id, "reason", reason)
	b.gaveUp[g.Group] = append(notes, u)
}

// keepGivenUp brings together what is noted and what was noted by leaders
// before, and drops what ended.
func (b *Balancer) keepGivenUp(led []host.GroupStatus, m *router.Map) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := make(map[keyspace.GroupID][]router.GivenUp)
	for _, g := range led {
		for _, u := range append(slices.Clone(b.gaveUp[g.Group]), m.GivenUp[g.Group]...) {
			known := slices.ContainsFunc(kept[g.Group], func(k router.GivenUp) bool { return k.Node == u.Node })
			if !known && b.stands(u, m) {
				kept[g.Group] = append(kept[g.Group], u)
			}
		}
		slices.SortFunc(kept[g.Group], func(x, y router.GivenUp) int { return cmp.Compare(x.Node, y.Node) })
	}
	b.gaveUp = kept
}

// stands reports whether a note is still in force.
func (b *Balancer) stands(u router.GivenUp, m *router.Map) bool {
	_, member := m.Nodes[u.Node]
	switch {
	case !member:
		return false
	case u.Until == 0:
		return b.o.Silent(u.Node) > 0
	}
	now := b.o.Clock.Wall()
	return now < u.Until && u.Since <= now+avoidFor.Milliseconds() // not by a clock that was far off
}

// givenUp are the notes in force of a group that this node leads.
func (b *Balancer) givenUp(g keyspace.GroupID) []router.GivenUp {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gaveUp[g]
}
