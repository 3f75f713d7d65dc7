package host

import (
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

// A leader whose clock jumps away from its peers' gives up leadership in time,
// also when it has just begun to lead.
func TestBadClockGivesUpLeadership(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": 10 * time.Second, "behind": -10 * time.Second, "a little": 600 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			clock := &jumpyClock{}
			c := newCluster(t, 3, 3, func(c *cluster) {
				clock.cluster = c
				c.opt = func(o *Options) {
					if o.Node == "n1" {
						o.Clock = clock
					}
				}
			})
			old := c.nodes[0]
			for range 2 { // the second time, it has just begun to lead
				clock.ahead.Store(jump.Milliseconds())
				began := c.Mono()
				c.pump("another leader serves", func() bool { n := c.serving(); return n != nil && n != old && !old.leads() })
				if took := c.Mono() - began; took > inTime {
					t.Errorf("leadership moved after %v", took)
				}
				clock.ahead.Store(0)
				c.pump("it leads again", func() bool { return c.serving() == old })
			}
		})
	}
}
