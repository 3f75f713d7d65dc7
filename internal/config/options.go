package config

import (
	"time"

	"kvstore/internal/tlsconf"
)

// option is one row of the table that describes the configuration.
type option struct {
	key string
	def any
	doc string
	at  func(*Config) value
}

// section is a documented group of options with a common first key.
type section struct{ key, doc string }

// sections in the order of the file; options without a section come last.
var sections = []section{
	{"cluster", "The cluster's name and its shape, decided once, at bootstrap."},
	{"node", "This node."},
	{"listen", "Addresses to bind (S2.2, S0.3). Loopback by default: a node is reachable from outside only when you say so."},
	{"advertise", "Addresses others reach this node at. Empty: the listen address, with the host of this node's own entry in cluster_membership when it listens on all interfaces."},
	{"cluster_membership", "The first members of the cluster (S3.12). Empty: this node is a cluster of its own. A node that is not listed joins the cluster of those that are."},
	{"gossip", "What nodes tell each other all the time: who is alive, and how each is doing. Hints only; see docs/gossip.md."},
	{"tls", "TLS on every listener and mutual TLS between nodes (S3.19). Empty files: plaintext. Changed files are read again while the node runs."},
	{"badger_config", "The storage engine (S3.14). What is not given derives from memory_budget."},
	{"log", "This process's log, on standard error."},
	{"limits", "What clients may ask of this node."},
	{"debug", "What shows how this node works inside."},
}

const nameAllowed = "1 to 63 of a-z A-Z 0-9 - _ ."

var options = []option{
	{"cluster.name", "kvstore", "Name of the cluster. Nodes of another name are refused.",
		func(c *Config) value { return textValue{&c.Cluster.Name, nameAllowed, checkName} }},
	{"cluster.groups", leastGroups, "Raft groups that share the keys, beside the one of the cluster's metadata. Not given: as many as cluster_membership has members, at least 3, so that each node leads one: every group more makes batches smaller. A cluster that exists gets more by `kvctl cluster set`.",
		func(c *Config) value { return intValue{&c.Cluster.Groups, 1, 1024} }},
	{"cluster.replication_factor", 3, "Copies of every key; fewer while the cluster has fewer nodes.",
		func(c *Config) value { return oddValue{intValue{&c.Cluster.ReplicationFactor, 1, 7}} }},

	{"cluster.replace_after", 5 * time.Minute, "How long a node may be silent before its replicas are placed on others, where there is room. 0s: never. The node that leads group 0 decides, by its own setting.",
		func(c *Config) value { return durationValue{&c.Cluster.ReplaceAfter, 0, 24 * time.Hour * 30} }},

	{"node.name", "node-1", "Name of this node, unique in the cluster.",
		func(c *Config) value { return textValue{&c.Node.Name, nameAllowed, checkName} }},
	{"node.role", RoleData, "data, or witness: a node that votes in groups with an even number of copies and stores no data. It joins a cluster, and a data directory keeps its role.",
		func(c *Config) value { return choiceValue{&c.Node.Role, []string{RoleData, RoleWitness}} }},
	{"node.zone", "", "Failure domain of this node; copies are spread over zones.",
		func(c *Config) value {
			return textValue{&c.Node.Zone, "empty, or " + nameAllowed, checkOptional(checkName)}
		}},
	{"node.data_dir", "data", "Directory of all that this node stores.",
		func(c *Config) value { return textValue{&c.Node.DataDir, "a path", checkPath} }},
	{"node.weight", 1.0, "Capacity beside other nodes: one of weight 2 gets twice the replicas.",
		func(c *Config) value { return floatValue{&c.Node.Weight, 0.1, 100} }},
	{"node.leader_priority", 0, "Groups prefer to be led by members with a higher one; among equal ones leaders are spread evenly.",
		func(c *Config) value { return intValue{&c.Node.LeaderPriority, -100, 100} }},

	{"listen.http", "127.0.0.1:8080", "REST, health, and gRPC for those behind one load balancer.", listenAt(func(c *Config) *string { return &c.Listen.HTTP })},
	{"listen.grpc", "127.0.0.1:8085", "gRPC.", listenAt(func(c *Config) *string { return &c.Listen.GRPC })},
	{"listen.peer", "127.0.0.1:7946", "Traffic between nodes.", listenAt(func(c *Config) *string { return &c.Listen.Peer })},
	{"listen.gossip", "127.0.0.1:7947", "Gossip between nodes (UDP); its streams go to listen.peer. Not given: port 7947 on the host of listen.peer.", listenAt(func(c *Config) *string { return &c.Listen.Gossip })},
	{"listen.metrics", "127.0.0.1:2112", "Metrics and health.", listenAt(func(c *Config) *string { return &c.Listen.Metrics })},

	{"advertise.http", "", "For listen.http.", advertiseAt(func(c *Config) *string { return &c.Advertise.HTTP })},
	{"advertise.grpc", "", "For listen.grpc.", advertiseAt(func(c *Config) *string { return &c.Advertise.GRPC })},
	{"advertise.peer", "", "For listen.peer.", advertiseAt(func(c *Config) *string { return &c.Advertise.Peer })},
	{"advertise.gossip", "", "For listen.gossip.", advertiseAt(func(c *Config) *string { return &c.Advertise.Gossip })},

	{"cluster_membership.current_config", []Member(nil), "The first members, the same list on every one of them. Address is the member's peer address. As a flag or variable: node-1=host:port,node-2=host:port.",
		func(c *Config) value { return membersValue{&c.Membership} }},
	{"cluster_membership.pending_config", nil, "Must be empty: a change of members is a matter of the running cluster.",
		func(*Config) value { return pendingValue{} }},

	{"gossip.key_file", "", "File of the keys that gossip is encrypted with, the same on every node: one per line, 16, 24 or 32 bytes in base64. The first one encrypts, all decrypt. Read again while the node runs. Empty: not encrypted.",
		func(c *Config) value { return textValue{&c.Gossip.KeyFile, "a path", nil} }},
	{"gossip.interval", time.Second, "How often a node probes another. One that does not answer is suspect after this, dead after at least four times this.",
		func(c *Config) value {
			return durationValue{&c.Gossip.Interval, 100 * time.Millisecond, 10 * time.Second}
		}},

	{"tls.cert_file", "", "This node's certificate chain, PEM.",
		func(c *Config) value { return textValue{&c.TLS.CertFile, "a path", nil} }},
	{"tls.key_file", "", "Its private key, PEM.",
		func(c *Config) value { return textValue{&c.TLS.KeyFile, "a path", nil} }},
	{"tls.ca_file", "", "The authorities that sign nodes and clients, PEM.",
		func(c *Config) value { return textValue{&c.TLS.CAFile, "a path", nil} }},
	{"tls.client_auth", tlsconf.DefaultClientAuth, "What clients must show. Nodes always show certificates to each other.",
		func(c *Config) value { return choiceValue{&c.TLS.ClientAuth, clientAuthChoices} }},
	{"tls.min_version", tlsconf.DefaultMinVersion, "Lowest TLS version.",
		func(c *Config) value { return choiceValue{&c.TLS.MinVersion, []string{"1.2", "1.3"}} }},
	{"tls.cipher_suites", []string{"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}, "Validated and reported. Go negotiates among all TLS 1.3 suites, which are all AEAD.",
		func(c *Config) value { return listValue{&c.TLS.CipherSuites, "AEAD suites"} }},

	{"badger_config.memtable_size", 64 * MB, "Size of one memtable; a 128th of a memory_budget below 2GB, at least 4MB.",
		func(c *Config) value { return sizeValue{p: &c.Badger.MemtableSize, min: MB, max: GB} }},
	{"badger_config.block_cache_size", 256 * MB, "Cache of uncompressed blocks. 0 turns it off and needs compression none.",
		func(c *Config) value { return sizeValue{p: &c.Badger.BlockCacheSize, max: TB} }},
	{"badger_config.index_cache_size", 128 * MB, "Cache of table indices and filters. 0 keeps all of them in memory.",
		func(c *Config) value { return sizeValue{p: &c.Badger.IndexCacheSize, max: TB} }},
	{"badger_config.num_memtables", 5, "Memtables in memory before writes wait; 2 with a memory_budget below 2GB.",
		func(c *Config) value { return intValue{&c.Badger.NumMemtables, 1, 64} }},
	{"badger_config.num_level_zero_tables", 5, "Tables on level zero before compaction starts. Writes wait at six times as many, and not below 15.",
		func(c *Config) value { return intValue{&c.Badger.NumLevelZeroTables, 1, 256} }},
	{"badger_config.level_size_multiplier", 10, "How much larger each level is than the one above.",
		func(c *Config) value { return intValue{&c.Badger.LevelSizeMultiplier, 2, 100} }},
	{"badger_config.value_threshold", KB, "Larger values live in the value log.",
		func(c *Config) value { return sizeValue{p: &c.Badger.ValueThreshold, min: 32, max: MB} }},
	{"badger_config.value_log_file_size", GB, "Size of one value log file.",
		func(c *Config) value { return sizeValue{p: &c.Badger.ValueLogFileSize, min: MB, max: 2*GB - 1} }},
	{"badger_config.sync_writes", false, "Only false: the raft log is what makes writes durable, before they are acknowledged.",
		func(c *Config) value { return boolValue{&c.Badger.SyncWrites} }},
	{"badger_config.num_compactors", 4, "Compactions at a time; no more than the machine has CPUs unless it is given, at least 2.",
		func(c *Config) value { return intValue{&c.Badger.NumCompactors, 2, 64} }},
	{"badger_config.compression", "snappy", "Of tables.",
		func(c *Config) value { return choiceValue{&c.Badger.Compression, []string{"none", "snappy", "zstd"}} }},

	{"log.level", "info", "Least level that is written.",
		func(c *Config) value { return choiceValue{&c.Log.Level, []string{"debug", "info", "warn", "error"}} }},
	{"log.format", "text", "Form of a line.",
		func(c *Config) value { return choiceValue{&c.Log.Format, []string{"text", "json"}} }},

	{"limits.max_concurrent_requests", 4096, "Requests in progress; more are refused as overloaded.",
		func(c *Config) value { return intValue{&c.Limits.MaxConcurrentRequests, 1, 1 << 20} }},
	{"limits.max_request_bytes_queued", Size(0), "Bytes of requests in progress; more are refused as overloaded. auto: a share of memory_budget, at least 40MB.",
		func(c *Config) value {
			return sizeValue{p: &c.Limits.MaxRequestBytesQueued, min: 40 * MB, max: TB, auto: true}
		}},
	{"limits.max_connections", 10000, "Open client connections per listener; more wait to be accepted.",
		func(c *Config) value { return intValue{&c.Limits.MaxConnections, 1, 1 << 20} }},
	{"limits.max_watches", 200000, "Open watches of clients, over all streams; more are refused as overloaded.",
		func(c *Config) value { return intValue{&c.Limits.MaxWatches, 1, 1 << 24} }},
	{"limits.default_timeout", 10 * time.Second, "Of a request that brings no deadline.",
		func(c *Config) value {
			return durationValue{&c.Limits.DefaultTimeout, 10 * time.Millisecond, time.Minute}
		}},
	{"limits.max_timeout", 60 * time.Second, "Longest deadline a request is given.",
		func(c *Config) value { return durationValue{&c.Limits.MaxTimeout, 10 * time.Millisecond, time.Hour} }},

	{"debug.profiling", true, "Answer `kvctl debug profile`: one profile at a time, recorded only when asked for.",
		func(c *Config) value { return boolValue{&c.Debug.Profiling} }},

	{"join", []string(nil), "Peer addresses of members of a running cluster, host or host:port (7946). A node whose data directory is empty joins through them and never founds a cluster; later starts do not need them.",
		func(c *Config) value { return addressesValue{&c.Join} }},
	{"profile", "standard", "Size of the machine: decides memory_budget and how much runs beside requests.",
		func(c *Config) value { return choiceValue{&c.Profile, []string{"edge", "standard", "scale"}} }},
	{"memory_budget", Size(0), "What delta, memtables, caches, queues and log tails share. auto: 128MB for edge, 2GB for standard, 8GB for scale.",
		func(c *Config) value { return sizeValue{p: &c.MemoryBudget, min: 96 * MB, max: 64 * TB, auto: true} }},
	{"history_window", 10 * time.Minute, "How long overwritten versions can be read.",
		func(c *Config) value { return durationValue{&c.HistoryWindow, time.Second, 24 * time.Hour * 7} }},
	{"pprof", false, "Serve /debug/pprof on the metrics listener.",
		func(c *Config) value { return boolValue{&c.Pprof} }},
}

// clientAuthChoices are the values of tls.client_auth.
var clientAuthChoices = []string{"none", "request_client_cert", "require_any_client_cert", "verify_client_cert_if_given", "require_and_verify_client_cert"}

func listenAt(field func(*Config) *string) func(*Config) value {
	return func(c *Config) value { return textValue{field(c), "host:port", checkListen} }
}

func advertiseAt(field func(*Config) *string) func(*Config) value {
	return func(c *Config) value {
		return textValue{field(c), "empty, or host:port", checkOptional(checkAddress)}
	}
}
