package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
)

const (
	// evenTimeout is how long leaders may take to be where they are preferred.
	evenTimeout = 30 * time.Second
	lookEvery   = 200 * time.Millisecond
)

// waitEven returns when no node leads more groups than it must.
func (s *session) waitEven(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, evenTimeout)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		leads, err := s.leads(ctx)
		if err == nil && even(leads, s.Groups) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("leaders are not spread evenly after %s: nodes lead %v of %d groups: %w", evenTimeout, leads, s.Groups, ctx.Err())
		case <-look.C:
		}
	}
}

// even: all groups have a leader, and no node leads more than it must.
func even(leads []int, groups int) bool {
	most := (groups + len(leads) - 1) / len(leads)
	sum := 0
	for _, n := range leads {
		if n > most {
			return false
		}
		sum += n
	}
	return sum == groups
}

// leads counts the groups that each node leads, without that of the metadata.
func (s *session) leads(ctx context.Context) ([]int, error) {
	var all []int
	for _, n := range s.cluster.Nodes {
		status, err := nodeStatus(ctx, n.Endpoint)
		if err != nil {
			return nil, err
		}
		leads := 0
		for _, g := range status.GetGroups() {
			if g.GetGroup() != 0 && g.GetRole() == "leader" {
				leads++
			}
		}
		all = append(all, leads)
	}
	return all, nil
}

func nodeStatus(ctx context.Context, endpoint string) (*api.StatusResponse, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return api.NewKVStoreClient(conn).Status(ctx, &api.StatusRequest{})
}
