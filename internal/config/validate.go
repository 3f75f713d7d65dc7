package config

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

func checkPath(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if strings.ContainsRune(s, 0) {
		return errors.New("has a zero byte")
	}
	return nil
}

// validate reports what is wrong between options; each option has already
// checked itself.
func (c *Config) validate() Problems {
	var problems Problems
	add := func(key, message, allowed string) {
		o := findOption(key)
		problems = append(problems, Problem{Key: key, Value: o.at(c).String(), Source: c.Source(key), Message: message, Allowed: allowed})
	}
	if c.Badger.SyncWrites {
		add("badger_config.sync_writes", "the raft log is fsynced before a write is acknowledged and Badger is rebuilt from it; a second sync would only cost", "false")
	}
	if c.Badger.BlockCacheSize == 0 && c.Badger.Compression != "none" && c.Given("badger_config.block_cache_size") {
		add("badger_config.block_cache_size", "compressed tables need a block cache", "more than 0, or compression none")
	}
	if c.Limits.DefaultTimeout > c.Limits.MaxTimeout {
		add("limits.default_timeout", "is longer than limits.max_timeout "+formatDuration(c.Limits.MaxTimeout), "at most limits.max_timeout")
	}
	c.validateTLS(add)
	c.validateMembership(add)
	c.validateListen(add)
	return problems
}

type addProblem func(key, message, allowed string)

func (c *Config) validateTLS(add addProblem) {
	for _, p := range c.TLS.Problems() {
		add("tls."+p.Key, p.Message, "")
	}
}

func (c *Config) validateMembership(add addProblem) {
	if c.Witness() && c.ownMember() != nil {
		add("node.role", fmt.Sprintf("cluster_membership.current_config has %s, and first members found the cluster's data", c.Node.Name), "data, or a witness that current_config does not list")
	}
	if own := c.ownMember(); own != nil && own.Zone != "" && c.Node.Zone != "" && own.Zone != c.Node.Zone {
		add("node.zone", fmt.Sprintf("cluster_membership.current_config puts %s in zone %q", c.Node.Name, own.Zone), "the same zone in both places, or in one")
	}
}

// validateListen refuses two listeners of one protocol on one port.
func (c *Config) validateListen(add addProblem) {
	seen := map[string]string{}
	for _, l := range []struct{ key, addr string }{
		{"listen.http", c.Listen.HTTP}, {"listen.grpc", c.Listen.GRPC}, {"listen.peer", c.Listen.Peer}, {"listen.metrics", c.Listen.Metrics},
	} {
		_, port, err := net.SplitHostPort(l.addr)
		if err != nil || port == "0" {
			continue
		}
		if other, taken := seen[l.addr]; taken {
			add(l.key, "is also the address of "+other, "an address of its own")
		}
		seen[l.addr] = l.key
	}
}

// ownMember returns this node's entry in the first members, or nil.
func (c *Config) ownMember() *Member {
	for i := range c.Membership {
		if c.Membership[i].NodeID == c.Node.Name {
			return &c.Membership[i]
		}
	}
	return nil
}

// FirstMember reports whether this node is one of the named first members, or
// alone.
func (c *Config) FirstMember() bool { return len(c.Membership) == 0 || c.ownMember() != nil }

// fillGossip puts gossip where peers are: on loopback, packets would not reach a
// node whose peer port others reach.
func (c *Config) fillGossip() {
	host, _, err := net.SplitHostPort(c.Listen.Peer)
	_, port, gossipErr := net.SplitHostPort(c.Listen.Gossip)
	if c.Given("listen.gossip") || !c.Given("listen.peer") || err != nil || gossipErr != nil {
		return
	}
	c.Listen.Gossip = net.JoinHostPort(host, port)
}

// fillAdvertise completes what the user left empty.
func (c *Config) fillAdvertise() {
	own := c.ownMember()
	if own != nil {
		if c.Advertise.Peer == "" {
			c.Advertise.Peer = own.Address
		}
		if c.Node.Zone == "" {
			c.Node.Zone = own.Zone
		}
	}
	host := ""
	if h, _, err := net.SplitHostPort(c.Advertise.Peer); err == nil {
		host = h
	}
	for _, a := range []struct {
		advertise *string
		listen    string
	}{
		{&c.Advertise.HTTP, c.Listen.HTTP}, {&c.Advertise.GRPC, c.Listen.GRPC},
		{&c.Advertise.Peer, c.Listen.Peer}, {&c.Advertise.Gossip, c.Listen.Gossip},
	} {
		if *a.advertise == "" {
			*a.advertise = reachable(a.listen, host)
		}
	}
}

// reachable replaces an unspecified host of a listen address.
func reachable(listen, host string) string {
	h, port, err := net.SplitHostPort(listen)
	if err != nil || host == "" {
		return listen
	}
	if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort(host, port)
	}
	return listen
}
