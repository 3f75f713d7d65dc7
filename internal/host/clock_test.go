package host

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// jumpyClock is the cluster's clock with a wall clock that may be wrong.
type jumpyClock struct {
	*cluster
	ahead atomic.Int64 // milliseconds
}

func (j *jumpyClock) Wall() int64 { return j.cluster.Wall() + j.ahead.Load() }

// newJumpyCluster is three nodes of which the first, which leads, has the clock.
func newJumpyCluster(t *testing.T) (*cluster, *jumpyClock) {
	t.Helper()
	clock := &jumpyClock{}
	return newCluster(t, 3, 3, func(c *cluster) {
		clock.cluster = c
		c.opt = func(o *Options) {
			if o.Node == "n1" {
				o.Clock = clock
			}
		}
	}), clock
}

// A leader whose clock jumps away from its peers' gives up leadership in time,
// also when it has just begun to lead.
func TestBadClockGivesUpLeadership(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": 10 * time.Second, "behind": -10 * time.Second, "a little": 600 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			c, clock := newJumpyCluster(t)
			old := c.nodes[0]
			for range 2 { // the second time, it has just begun to lead
				clock.ahead.Store(jump.Milliseconds())
				began := c.Mono()
				c.pump("another leader serves", func() bool { n := c.serving(); return n != nil && n != old && !old.leads() })
				if took := c.Mono() - began; took > inTime {
					t.Errorf("leadership moved after %v", took)
				}
				for i, n := range c.nodes {
					if ahead, off := n.host.ClockAhead(); off != (i == 0) || i == 0 && (ahead-jump).Abs() > 10*time.Millisecond {
						t.Errorf("node %d says that its clock is off: %v, by %v", i, off, ahead)
					}
				}
				clock.ahead.Store(0)
				c.pump("it leads again", func() bool { return c.serving() == old })
			}
		})
	}
}

// What a leader stamps does not follow its clock when that jumps, not even before
// it next hears of its peers.
func TestRevisionsDoNotFollowAJump(t *testing.T) {
	c, clock := newJumpyCluster(t)
	c.write(testOp("key", "before"))
	for _, jump := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		clock.ahead.Store(jump.Milliseconds())
		r, answers := c.nodes[0].submit(testOp("key", jump.String()))
		if err := c.nodes[0].host.Step(); err != nil { // it stamps before any peer is heard of
			t.Fatal(err)
		}
		c.pump("the write is answered", func() bool { return answers.Load() > 0 })
		if err := errors.Join(r.Err, r.Ops[0].Result.Err); err != nil {
			t.Fatal(err)
		}
		ahead := time.Duration(r.Ops[0].Result.Revision.UnixMilli()-c.Wall()) * time.Millisecond
		if limit := c.nodes[0].host.opt.MaxClockOffset + time.Second; ahead.Abs() > limit {
			t.Errorf("the clock jumped by %v, and a revision is stamped %v ahead, at most %v are allowed", jump, ahead, limit)
		}
		clock.ahead.Store(0)
		c.pump("it leads again", func() bool { return c.serving() == c.nodes[0] })
	}
}
