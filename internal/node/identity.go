package node

import (
	"encoding/json"
	"fmt"

	"kvstore/internal/config"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/membership"
	"kvstore/internal/raftlog"
	"kvstore/internal/transport"
)

// Facts about this node in the raft log. Once the host has started the log
// belongs to it (host.StoreFact).
const (
	metaNodeID  = "node_id"
	metaCluster = "cluster"
	metaRole    = "role"
)

// keepRole holds a data directory to the role it was made in: replicas with data
// and witnesses are different ones, and so are the nodes that have them.
func keepRole(log *raftlog.Log, n config.Node) error {
	role, known := log.Meta(metaRole)
	if _, old := log.Meta(metaNodeID); !known && old {
		role = []byte(config.RoleData) // one of a version that had no other
	} else if !known {
		return putFact(log, metaRole, []byte(n.Role))
	}
	if string(role) != n.Role {
		return fault.New(fault.FailedPrecondition, "the data directory belongs to a node of another role; a role is kept for life: "+
			"drain and remove the node, delete the directory, and join anew", "data_dir", n.DataDir, "role", string(role), "node.role", n.Role)
	}
	return nil
}

// clusterFact is what a node remembers of the cluster it belongs to.
type clusterFact struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Founded is name -> life of the first members; nil after a join.
	Founded map[string]string `json:"founded,omitempty"`
	// Groups and ReplicationFactor as founded.
	Groups            int `json:"groups,omitempty"`
	ReplicationFactor int `json:"replication_factor,omitempty"`
	// FoundedMilli is when, by this node's clock.
	FoundedMilli int64 `json:"founded_milli,omitempty"`
	// Recovery is the last one this node has taken part in, or that came before
	// it joined; nil for none.
	Recovery *transport.Recovery `json:"recovery,omitempty"`
}

// loadNodeID returns the id of the data directory, drawing it on first use. A
// log that lost facts to damage does not get a new one silently: the directory
// would be taken for an empty one.
func loadNodeID(log *raftlog.Log) (keyspace.NodeID, error) {
	if id, ok := log.Meta(metaNodeID); ok {
		return keyspace.NodeID(id), nil
	}
	if log.Hidden() || len(log.Groups()) > 0 {
		return "", fault.New(fault.Corruption, "the raft log lost this node's identity; delete the data directory, the node is then rebuilt from its peers")
	}
	id := membership.NewLife()
	return keyspace.NodeID(id), putFact(log, metaNodeID, []byte(id))
}

// loadCluster returns the cluster this node belongs to; nil while it belongs
// to none.
func loadCluster(log *raftlog.Log) (*clusterFact, error) {
	text, ok := log.Meta(metaCluster)
	if !ok {
		return nil, nil //nolint:nilnil // absence is no failure
	}
	f := &clusterFact{}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fault.Wrap(fault.Corruption, err, "the stored cluster does not decode")
	}
	return f, nil
}

func storeCluster(log *raftlog.Log, f *clusterFact) error {
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("storing the cluster: %w", err)
	}
	return putFact(log, metaCluster, text)
}

func putFact(log *raftlog.Log, key string, value []byte) error {
	b := log.NewBatch()
	b.SetMeta(key, value)
	if err := log.Commit(b, true); err != nil {
		return fmt.Errorf("storing %s: %w", key, err)
	}
	return nil
}
