package client

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// Members returns the cluster's nodes, what is expected of them, and where each
// group is and goes.
func (c *Client) Members(ctx context.Context) (*api.MembersResponse, error) {
	return unary(ctx, c, readUnary, &api.MembersRequest{}, kvClient.Members)
}

// ExpectNode announces a node that will join, or takes that back.
func (c *Client) ExpectNode(ctx context.Context, req *api.ExpectNodeRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.ExpectNode)
}

// DrainNode moves all replicas away from a node, or takes that back. The moves
// go on after the answer; Members shows how far they are.
func (c *Client) DrainNode(ctx context.Context, req *api.DrainNodeRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.DrainNode)
}

// RemoveNode ends a node's membership for good.
func (c *Client) RemoveNode(ctx context.Context, req *api.RemoveNodeRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.RemoveNode)
}

// ReplaceNode moves all replicas of one node to another.
func (c *Client) ReplaceNode(ctx context.Context, req *api.ReplaceNodeRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.ReplaceNode)
}

// Configure changes the replication factor, how replicas may be moved and how
// many data groups there should be.
func (c *Client) Configure(ctx context.Context, req *api.ConfigureRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.Configure)
}

// HoldGroup cancels a group's move, or releases it.
func (c *Client) HoldGroup(ctx context.Context, req *api.HoldGroupRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.HoldGroup)
}

// CancelSlotMove undoes moves of slots that have not left their group yet, and
// holds those that would be planned next.
func (c *Client) CancelSlotMove(ctx context.Context, req *api.CancelSlotMoveRequest) (*api.MembersResponse, error) {
	return unary(ctx, c, writeUnary, req, kvClient.CancelSlotMove)
}
