package config

import (
	"fmt"
	"strings"
)

// Budget is how memory_budget is shared (DESIGN 14). The parts never add up
// to more than Total.
//
// Everything a node keeps in memory in proportion to its data or its load is
// in here: Badger's memtables and caches, the delta over it, the raft log's
// cache of recent entries, requests in progress, and frames waiting for peers.
// What badger_config states wins; the rest is shared out of what remains, in
// fixed proportions, each part within its own bounds.
type Budget struct {
	Total Size
	// Memtables is memtable_size x num_memtables.
	Memtables, BlockCache, IndexCache Size
	// Delta is all deltas together; one is sealed at DeltaSeal bytes and at
	// most DeltaSealed wait to be flushed.
	Delta, DeltaSeal Size
	DeltaSealed      int
	// Runs bounds the indexes of sorted runs, about a hundredth of those.
	Runs Size
	// Records holds the newest versions of keys that were read from the engine.
	Records Size
	// RaftCache holds recent log entries.
	RaftCache Size
	// Requests bounds bytes of requests in progress, Frames those queued for
	// peers.
	Requests, Frames Size
	// Proposals bounds those of the requests that wait in the host; it is a
	// part of Requests, since they are the same bytes.
	Proposals Size
}

// profileBudget is memory_budget's default.
var profileBudget = map[string]Size{"edge": 128 * MB, "standard": 2 * GB, "scale": 8 * GB}

// witnessBudget is all that a witness has, whatever memory_budget says: terms and
// indexes, and what it passes on for clients, at most one request of the largest
// size at a time.
var witnessBudget = Budget{Total: 48 * MB, Delta: MB, DeltaSeal: 256 * KB, DeltaSealed: deltaSealed, RaftCache: 512 * KB,
	Requests: leastRequests / 2, Frames: 4 * MB, Proposals: leastRequests / 4}

// share is a part's proportion of what the explicit values leave, and bounds.
type share struct {
	weight   int64
	min, max Size
	into     *Size
}

// headroom is the part of Total, one in so many, that stays for what has no
// share: goroutines, connections, metrics, and garbage that is not collected yet.
const headroom = 6

// deltaPart is the part of Total, one in so many, that deltas take at most.
const deltaPart = 6

// deltaSealed is how many sealed deltas may wait for their flush.
const deltaSealed = 2

// leastRequests holds two requests of the largest size with their overhead.
const leastRequests = 40 * MB

// Budget returns how memory is shared. It is valid for a Config from Load.
func (c *Config) Budget() Budget {
	b, _ := c.budget()
	return b
}

func (c *Config) budget() (Budget, Problems) {
	if c.Witness() {
		return witnessBudget, nil
	}
	b := Budget{Total: c.MemoryBudget, DeltaSealed: deltaSealed}
	if b.Total == 0 {
		b.Total = profileBudget[c.Profile]
	}
	b.Memtables = c.Badger.MemtableSize * Size(c.Badger.NumMemtables)
	b.BlockCache, b.IndexCache = c.Badger.BlockCacheSize, c.Badger.IndexCacheSize
	rest := b.Total - b.Memtables - b.BlockCache - b.IndexCache
	mostDelta := max(6*MB, min(512*MB, b.Total/deltaPart))
	shares := []share{
		{8, 6 * MB, mostDelta, &b.Delta},
		{4, 4 * MB, 1 * GB, &b.Runs},
		{2, 2 * MB, 1 * GB, &b.Records},
		{4, 4 * MB, 512 * MB, &b.RaftCache},
		{2, max(leastRequests, c.Limits.MaxRequestBytesQueued), 512 * MB, &b.Requests},
		{2, 4 * MB, 256 * MB, &b.Frames},
	}
	least := leastOf(shares)
	if rest < least {
		return b, Problems{c.excess(b, least)}
	}
	divide(max(least, rest-b.Total/headroom), shares)
	b.DeltaSeal = b.Delta / (deltaSealed + 1)
	if c.Limits.MaxRequestBytesQueued != 0 {
		b.Requests = c.Limits.MaxRequestBytesQueued
	}
	b.Proposals = b.Requests / 2
	return b, nil
}

func leastOf(shares []share) Size {
	var sum Size
	for _, s := range shares {
		sum += s.min
	}
	return sum
}

// divide gives every share its least, then the remainder by weight, within
// each share's most.
func divide(total Size, shares []share) {
	remainder := total - leastOf(shares)
	var weights int64
	for _, s := range shares {
		weights += s.weight
	}
	for _, s := range shares {
		*s.into = max(s.min, min(s.max, s.min+remainder/Size(weights)*Size(s.weight)))
	}
}

// excess explains which badger_config values leave too little (S3.14 in a
// small budget), with the sum.
func (c *Config) excess(b Budget, least Size) Problem {
	parts := []string{
		fmt.Sprintf("memtable_size %s x num_memtables %d", c.Badger.MemtableSize, c.Badger.NumMemtables),
		fmt.Sprintf("block_cache_size %s", b.BlockCache),
		fmt.Sprintf("index_cache_size %s", b.IndexCache),
	}
	sum := b.Memtables + b.BlockCache + b.IndexCache
	return Problem{
		Key:     "memory_budget",
		Value:   b.Total.String(),
		Source:  c.Source("memory_budget"),
		Message: fmt.Sprintf("badger_config needs %s (%s) and the rest of the node at least %s, %s together", sum, strings.Join(parts, " + "), least, sum+least),
		Allowed: fmt.Sprintf("at least %s, or a smaller badger_config", sum+least),
	}
}

// deriveBudget sets the badger_config values that the user left open so that
// they fit memory_budget. A budget that has room for all of S3.14's defaults
// twice over leaves them as they are, or raises the caches.
func (c *Config) deriveBudget() Problems {
	total := c.MemoryBudget
	if total == 0 {
		total = profileBudget[c.Profile]
	}
	if c.Witness() {
		return nil
	}
	c.deriveMemtables(total)
	c.deriveCaches(total)
	_, problems := c.budget()
	if most := c.Badger.MemtableSize / valuesOfMemtable; c.Badger.ValueThreshold > most {
		problems = append(problems, Problem{
			Key:     "badger_config.value_threshold",
			Value:   c.Badger.ValueThreshold.String(),
			Source:  c.Source("badger_config.value_threshold"),
			Message: "is more than a tenth of memtable_size " + c.Badger.MemtableSize.String(),
			Allowed: "at most " + most.String() + ", or a larger memtable_size",
		})
	}
	return problems
}

// smallBudget is what S3.14's memtables are too large for.
const smallBudget = 2 * GB

// valuesOfMemtable is how many values of value_threshold a memtable holds at least:
// Badger takes no value larger than its batches, which are 15 % of a memtable.
const valuesOfMemtable = 10

// deriveMemtables gives a memtable a 128th of a small budget, and all never more
// than a sixth, however many there are. They are what Badger's other needs
// follow: building a table takes two to four times its size, and Badger keeps up
// to a dozen such buffers. Runs come in order, so a small memtable is a narrow
// range of keys and is merged down in a small piece.
func (c *Config) deriveMemtables(total Size) {
	small := total < smallBudget
	if small && !c.Given("badger_config.num_memtables") {
		c.derived("badger_config.num_memtables", func() { c.Badger.NumMemtables = 2 })
	}
	if !c.Given("badger_config.memtable_size") {
		fit := total / 6 / Size(c.Badger.NumMemtables) / MB * MB
		if small {
			fit = min(fit, total/128/MB*MB)
		}
		c.derived("badger_config.memtable_size", func() {
			c.Badger.MemtableSize = max(min(64*MB, max(4*MB, fit)), valuesOfMemtable*c.Badger.ValueThreshold)
		})
	}
	if c.Profile == "edge" {
		if !c.Given("badger_config.num_compactors") {
			c.derived("badger_config.num_compactors", func() { c.Badger.NumCompactors = 2 })
		}
		if !c.Given("badger_config.value_log_file_size") {
			c.derived("badger_config.value_log_file_size", func() { c.Badger.ValueLogFileSize = 64 * MB })
		}
	}
}

// deriveCaches gives the block cache an eighth and the index cache a
// sixteenth; 2GB yields S3.14's 256MB and 128MB.
func (c *Config) deriveCaches(total Size) {
	if !c.Given("badger_config.block_cache_size") {
		c.derived("badger_config.block_cache_size", func() { c.Badger.BlockCacheSize = max(8*MB, total/8/MB*MB) })
	}
	if !c.Given("badger_config.index_cache_size") {
		c.derived("badger_config.index_cache_size", func() { c.Badger.IndexCacheSize = max(4*MB, total/16/MB*MB) })
	}
}

func (c *Config) derived(key string, set func()) {
	set()
	c.sources[key] = sourceBudget
}
