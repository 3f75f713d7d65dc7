package recovery

import (
	"context"
	"fmt"
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/env/system"
)

// Call has a node take one step.
type Call func(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error)

// Run takes the steps of a plan: fence all survivors, adopt the lost groups,
// that of the metadata first, discard what is left behind, record. After an
// error, or when it is killed, the same is planned and run again.
func Run(ctx context.Context, p *Plan, call Call, say func(string)) error {
	r := &run{plan: p, call: call, say: say}
	for _, stage := range []func(context.Context) error{r.fence, r.adopt, r.discard, r.record} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return nil
}

type run struct {
	plan *Plan
	call Call
	say  func(string)
}

func (r *run) step(ctx context.Context, node string, step api.RecoverRequest_Step, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	q.NodeId, q.Step, q.ClusterId, q.Epoch = node, step, r.plan.ClusterID, r.plan.Epoch
	return r.call(ctx, q)
}

func (r *run) fence(ctx context.Context) error {
	for _, n := range r.plan.Nodes {
		if !slices.Contains(r.plan.survivors, n.ID) || n.epoch == r.plan.Epoch {
			continue
		}
		if _, err := r.step(ctx, n.ID, api.RecoverRequest_FENCE, &api.RecoverRequest{Survivors: r.plan.survivors}); err != nil {
			return fmt.Errorf("node %s does not take part: %w", n.Name, err)
		}
		r.say(fmt.Sprintf("node %s takes part in recovery %d", n.Name, r.plan.Epoch))
	}
	return nil
}

func (r *run) adopt(ctx context.Context) error {
	for i := range r.plan.Groups { // the meta group is the first
		g := &r.plan.Groups[i]
		if g.State != Lost {
			continue
		}
		answer, err := r.step(ctx, g.Survivor.NodeID, api.RecoverRequest_ADOPT, &api.RecoverRequest{Group: g.Group, Replica: g.Survivor.Replica,
			AboveReplica: g.aboveReplica, AboveTerm: g.aboveTerm, ClockMs: r.plan.clock})
		if err != nil {
			return fmt.Errorf("group %d on node %s: %w", g.Group, g.Survivor.Node, err)
		}
		r.say(fmt.Sprintf("group %d goes on with replica %d on node %s", g.Group, answer.GetReplica(), g.Survivor.Node))
	}
	return nil
}

func (r *run) discard(ctx context.Context) error {
	for i := range r.plan.Groups {
		for _, v := range r.plan.Groups[i].Discard {
			g := r.plan.Groups[i].Group
			if _, err := r.step(ctx, v.NodeID, api.RecoverRequest_DISCARD, &api.RecoverRequest{Group: g, Replica: v.Replica}); err != nil {
				return fmt.Errorf("replica %d of group %d on node %s: %w", v.Replica, g, v.Node, err)
			}
			r.say(fmt.Sprintf("replica %d of group %d on node %s is removed", v.Replica, g, v.Node))
		}
	}
	return nil
}

// recordPause lies between two attempts to record: the meta group may still be
// electing its leader.
const recordPause = 500 * time.Millisecond

func (r *run) record(ctx context.Context) error {
	var lost []string
	for _, n := range r.plan.Nodes {
		if !n.Survives {
			lost = append(lost, n.ID)
		}
	}
	node := r.plan.survivors[0]
	if g := r.plan.Groups[0]; g.Survivor != nil {
		node = g.Survivor.NodeID
	}
	for {
		_, err := r.step(ctx, node, api.RecoverRequest_RECORD, &api.RecoverRequest{Lost: lost})
		switch client.CodeOf(err) {
		case "":
			r.say(fmt.Sprintf("recovery %d is recorded; %d nodes are removed", r.plan.Epoch, len(lost)))
			return nil
		case client.CodeUnavailable, client.CodeDeadlineExceeded, client.CodeWrongLeader, client.CodeUnknownOutcome:
			if system.Pause(ctx, recordPause) == nil {
				continue
			}
		}
		return fmt.Errorf("the recovery is not recorded in the cluster's metadata yet, run it again: %w", err)
	}
}
