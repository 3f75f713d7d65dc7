package rpc

import (
	"context"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// Cluster shows and changes the shape of the cluster; *meta.Service is one.
type Cluster interface {
	Members(ctx context.Context, req *api.MembersRequest) (*api.MembersResponse, error)
	ExpectNode(ctx context.Context, req *api.ExpectNodeRequest) (*api.MembersResponse, error)
	DrainNode(ctx context.Context, req *api.DrainNodeRequest) (*api.MembersResponse, error)
	RemoveNode(ctx context.Context, req *api.RemoveNodeRequest) (*api.MembersResponse, error)
	ReplaceNode(ctx context.Context, req *api.ReplaceNodeRequest) (*api.MembersResponse, error)
	Configure(ctx context.Context, req *api.ConfigureRequest) (*api.MembersResponse, error)
	HoldGroup(ctx context.Context, req *api.HoldGroupRequest) (*api.MembersResponse, error)
	CancelSlotMove(ctx context.Context, req *api.CancelSlotMoveRequest) (*api.MembersResponse, error)
}

// clusterService implements api.ClusterServer.
type clusterService struct {
	api.UnsafeClusterServer // a method that is added must be served
	Cluster
}

func registerCluster(g *grpc.Server, c Cluster) {
	if c != nil {
		api.RegisterClusterServer(g, clusterService{Cluster: c})
	}
}
