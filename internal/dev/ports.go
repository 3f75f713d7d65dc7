package dev

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

const loopback = "127.0.0.1"

// Free ports are looked for below the range that systems give to outgoing
// connections: a node that is down for a while must find its ports free.
const (
	freePortsFrom = 10000
	freePortsTo   = 30000
	freeAttempts  = 200
)

// setPorts gives node i the ports from base on.
func setPorts(n *Node, base int) {
	at := func(offset int) string { return net.JoinHostPort(loopback, strconv.Itoa(base+offset)) }
	n.HTTP, n.GRPC, n.Peer, n.Gossip, n.Metrics = at(0), at(1), at(2), at(3), at(4)
}

// choosePorts gives every node its ports: from base on, or any free ones.
func choosePorts(nodes []Node, base int) error {
	if base != 0 {
		for i := range nodes {
			setPorts(&nodes[i], base+i*portsPerNode)
		}
		return nil
	}
	for range freeAttempts {
		base := freePortsFrom + rand.IntN((freePortsTo-freePortsFrom)/portsPerNode)*portsPerNode
		for i := range nodes {
			setPorts(&nodes[i], base+i*portsPerNode)
		}
		if checkPorts(nodes) == nil {
			return nil
		}
	}
	return fmt.Errorf("no %d free ports in a row found between %d and %d; choose a --base-port", len(nodes)*portsPerNode, freePortsFrom, freePortsTo)
}

// releaseTimeout is how long nodes of an earlier run, whose supervisor was
// killed, may hold their ports.
const releaseTimeout = 5 * time.Second

// waitForPorts expects free ports, after a moment where an earlier run had them.
func (c *cluster) waitForPorts() error {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	give := time.NewTimer(releaseTimeout)
	defer give.Stop()
	for {
		err := checkPorts(c.nodes)
		if err == nil || !c.existed {
			return err
		}
		select {
		case <-look.C:
		case <-give.C:
			return err
		}
	}
}

// checkPorts binds every port for a moment and reports all that are taken.
func checkPorts(nodes []Node) error {
	var taken []string
	for _, n := range nodes {
		for _, l := range []struct{ what, addr string }{{"http", n.HTTP}, {"grpc", n.GRPC}, {"peer", n.Peer}, {"metrics", n.Metrics}} {
			lis, err := net.Listen("tcp", l.addr)
			if err != nil {
				taken = append(taken, fmt.Sprintf("%s (%s %s): %v", l.addr, n.Name, l.what, cause(err)))
				continue
			}
			_ = lis.Close()
		}
		conn, err := net.ListenPacket("udp", n.Gossip)
		if err != nil {
			taken = append(taken, fmt.Sprintf("%s/udp (%s gossip): %v", n.Gossip, n.Name, cause(err)))
			continue
		}
		_ = conn.Close()
	}
	if len(taken) > 0 {
		return fmt.Errorf("ports cannot be used:\n  %s\nstop what uses them, or choose others with --base-port", strings.Join(taken, "\n  "))
	}
	return nil
}

// cause strips the address that the caller has already named.
func cause(err error) error {
	if op, ok := err.(*net.OpError); ok { //nolint:errorlint // the outermost type is wanted
		return op.Err
	}
	return err
}
