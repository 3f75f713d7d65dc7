package client

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// kvClient has the methods of all services.
type kvClient struct {
	api.KVStoreClient
	api.ClusterClient
	leases api.LeasesClient // has a List of its own
}

// Status returns the status of any one node.
func (c *Client) Status(ctx context.Context) (*api.StatusResponse, error) {
	return unary(ctx, c, readUnary, &api.StatusRequest{}, kvClient.Status)
}

// StatusOf returns the status of one node, by its id, name or gRPC address.
func (c *Client) StatusOf(ctx context.Context, node string) (*api.StatusResponse, error) {
	n := c.findNode(node)
	if n == nil {
		return nil, newError(CodeNotFound, "no such node", "node", node)
	}
	return unaryOn(ctx, c, readUnary, n, &api.StatusRequest{}, kvClient.Status)
}

func (c *Client) findNode(name string) *node {
	for _, n := range c.allNodes() {
		info := n.info.Load()
		if n.addr == name || info.GetId() == name || info.GetName() == name && name != "" {
			return n
		}
	}
	return nil
}

// Topology returns the cluster's slot map, nodes and leaders as a node sees
// them now.
func (c *Client) Topology(ctx context.Context) (*api.TopologyResponse, error) {
	return unary(ctx, c, readUnary, &api.TopologyRequest{}, kvClient.Topology)
}

// Nodes returns the cluster's nodes.
func (c *Client) Nodes(ctx context.Context) ([]*api.NodeInfo, error) {
	t, err := c.Topology(ctx)
	return t.GetNodes(), err
}

// Digest makes every replica hash its records at one log index and compares.
func (c *Client) Digest(ctx context.Context) (*api.DigestResponse, error) {
	return unary(ctx, c, readUnary, &api.DigestRequest{}, kvClient.Digest)
}

// RecoverPlan returns what a node, and the peers that it reaches, say of their
// replicas. It is answered without any quorum; see kvctl cluster recover.
func (c *Client) RecoverPlan(ctx context.Context) ([]*api.RecoverNode, error) {
	r, err := unary(ctx, c, readUnary, &api.RecoverPlanRequest{}, kvClient.RecoverPlan)
	return r.GetNodes(), err
}

// Recover has a node take one step of a recovery; steps may be repeated.
func (c *Client) Recover(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	return unary(ctx, c, readUnary, q, kvClient.Recover)
}

// CreateNamespace creates a namespace; ErrNamespaceExists when it is there.
func (c *Client) CreateNamespace(ctx context.Context, name string) (*api.Namespace, error) {
	ns, err := unary(ctx, c, writeUnary, &api.CreateNamespaceRequest{Name: name}, kvClient.CreateNamespace)
	c.wantRefresh()
	return ns, err
}

// ListNamespaces returns all namespaces.
func (c *Client) ListNamespaces(ctx context.Context) ([]*api.Namespace, error) {
	r, err := unary(ctx, c, readUnary, &api.ListNamespacesRequest{}, kvClient.ListNamespaces)
	return r.GetNamespaces(), err
}

// DescribeNamespace returns one namespace.
func (c *Client) DescribeNamespace(ctx context.Context, name string) (*api.Namespace, error) {
	return unary(ctx, c, readUnary, &api.DescribeNamespaceRequest{Name: name}, kvClient.DescribeNamespace)
}

// DeleteNamespace starts the job that deletes a namespace with all its keys.
func (c *Client) DeleteNamespace(ctx context.Context, name string) (*api.Job, error) {
	return unary(ctx, c, writeUnary, &api.DeleteNamespaceRequest{Name: name}, kvClient.DeleteNamespace)
}
