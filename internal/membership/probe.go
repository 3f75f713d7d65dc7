package membership

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
)

// probeAll asks all first members but this node at the same time and waits for
// every answer or its timeout, so that a later round never sees an older life.
func (a *Agent) probeAll(ctx context.Context) map[string]Answer {
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		answers = make(map[string]Answer, len(a.o.First))
	)
	for name, addr := range a.o.First {
		if name == a.o.Name {
			continue
		}
		wg.Go(func() {
			ans := a.probe(ctx, addr)
			mu.Lock()
			answers[name] = ans
			mu.Unlock()
		})
	}
	wg.Wait()
	return answers
}

func (a *Agent) probe(ctx context.Context, addr string) Answer {
	ctx, cancel := context.WithTimeout(ctx, a.o.ProbeTimeout)
	defer cancel()
	c, err := a.o.Dialer.ClientAt(addr)
	if err != nil {
		return Answer{Err: err.Error()}
	}
	r, err := c.Probe(ctx, &api.ProbeRequest{ClusterName: a.o.Cluster, NodeName: a.o.Name})
	if err != nil {
		return Answer{Err: reason(err)}
	}
	return Answer{
		Name:       r.GetNodeName(),
		Life:       r.GetLife(),
		ConfigHash: r.GetConfigHash(),
		Empty:      r.GetEmpty(),
		Seen:       r.GetSeenMembers(),
		ClusterID:  r.GetClusterId(),
		Founded:    r.GetFirstMembers(),
		Epoch:      r.GetRecoveryEpoch(),
	}
}

// reason is what operators read about a failed call.
func reason(err error) string {
	s := status.Convert(err)
	return s.Code().String() + ": " + s.Message()
}

// pauser spaces attempts: each pause is twice the one before, +- 50 %.
type pauser struct {
	min, max time.Duration
	next     time.Duration
}

func (p *pauser) reset() { p.next = 0 }

func (p *pauser) wait(ctx context.Context) error {
	p.next = min(max(2*p.next, p.min), p.max)
	return system.Pause(ctx, p.next/2+rand.N(p.next))
}
