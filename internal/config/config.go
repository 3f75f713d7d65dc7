// Package config reads a node's configuration. One table of options
// (options.go) is the only description: defaults, the YAML file, command-line
// flags, KVSTORE_ environment variables, `config default` and
// docs/configuration.md all come from it. Later sources win: defaults, file,
// environment, flags. Every problem is reported at once, with its key and
// what is allowed.
package config

import (
	"time"

	"kvstore/internal/format"
	"kvstore/internal/tlsconf"
)

// Config is the whole configuration of one node.
type Config struct {
	Cluster    Cluster
	Node       Node
	Listen     Listen
	Advertise  Advertise
	Membership []Member
	// Join lists peer addresses of a running cluster, for a node that is new.
	Join   []string
	Gossip Gossip
	TLS    tlsconf.Config
	Badger Badger

	Profile       string
	MemoryBudget  Size
	HistoryWindow time.Duration
	Log           Log
	Limits        Limits
	Debug         Debug
	Pprof         bool

	// sources says where each given key came from; a key that is missing has
	// its default value.
	sources map[string]string
}

// Cluster names the cluster and its shape at bootstrap.
type Cluster struct {
	Name              string
	Groups            int
	ReplicationFactor int
	// ReplaceAfter is how long a node may be silent before its replicas are
	// placed elsewhere; 0 for never.
	ReplaceAfter time.Duration
}

// Node is this node's identity and place.
type Node struct {
	Name string
	// Role is RoleData or RoleWitness.
	Role    string
	Zone    string
	DataDir string
	// Weight is the capacity beside other nodes, LeaderPriority the preference
	// to lead.
	Weight         float64
	LeaderPriority int
}

// Values of Node.Role.
const (
	RoleData    = format.RoleData
	RoleWitness = format.RoleWitness
)

// Witness reports whether this node votes without data.
func (c *Config) Witness() bool { return c.Node.Role == RoleWitness }

// Listen holds the addresses this node binds, host:port each. Gossip is UDP.
type Listen struct {
	HTTP, GRPC, Peer, Gossip, Metrics string
}

// Advertise holds the addresses others use to reach this node; Load fills
// what the user left empty.
type Advertise struct {
	HTTP, GRPC, Peer, Gossip string
}

// Gossip configures what nodes tell each other all the time.
type Gossip struct {
	KeyFile  string
	Interval time.Duration
}

// Member is one first member of the cluster (S3.12).
type Member struct {
	NodeID  string
	Address string
	Role    string
	Zone    string
}

// Badger holds exactly the keys of S3.14.
type Badger struct {
	MemtableSize        Size
	BlockCacheSize      Size
	IndexCacheSize      Size
	NumMemtables        int
	NumLevelZeroTables  int
	LevelSizeMultiplier int
	ValueThreshold      Size
	ValueLogFileSize    Size
	SyncWrites          bool
	NumCompactors       int
	Compression         string
}

// Log configures the process's own log.
type Log struct {
	Level  string
	Format string
}

// Limits bound what clients may ask of this node.
type Limits struct {
	MaxConcurrentRequests int
	MaxRequestBytesQueued Size
	MaxConnections        int
	MaxWatches            int
	DefaultTimeout        time.Duration
	MaxTimeout            time.Duration
}

// Debug says what may be seen of this node's inside.
type Debug struct {
	Profiling bool
}

// Source says where a key's value came from: "default", "memory budget",
// "file <name>", "environment <variable>" or "flag --<name>".
func (c *Config) Source(key string) string {
	if s, ok := c.sources[key]; ok {
		return s
	}
	return "default"
}

// Given reports whether the user set key himself.
func (c *Config) Given(key string) bool {
	s, ok := c.sources[key]
	return ok && s != sourceBudget
}

// sourceBudget marks values that were derived from the memory budget.
const sourceBudget = "memory budget"
