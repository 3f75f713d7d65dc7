// Package freeports finds ports of loopback for tests that bind them later, or
// again. The ports that the system gives to who asks for any are not for that: it
// gives them to outgoing connections as well, and where one has a port, who was
// promised it finds it in use.
package freeports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// The ports lie between those that kvstore dev looks for and those that the system
// gives out.
const first, count = 30_000, 2_700

var (
	from  = rand.Uint32N(count) // other processes look for ports, too
	given atomic.Uint32
)

// next is an address that this process has not been given yet.
func next() string { return fmt.Sprint("127.0.0.1:", first+(from+given.Add(1))%count) }

// Listen is net.Listen at a free port of TCP, which stays free when it is closed.
func Listen() (l net.Listener, err error) {
	for range count {
		if l, err = net.Listen("tcp", next()); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port: %w", err)
}

// Addresses are free for TCP and UDP.
func Addresses(n int) (out []string, err error) {
	for range count {
		if len(out) == n {
			return out, nil
		}
		addr := next()
		if free := Free(addr); free == nil {
			out = append(out, addr)
		} else {
			err = free
		}
	}
	return nil, fmt.Errorf("no %d free ports: %w", n, err)
}

// Free says why an address cannot be bound, nil when TCP and UDP both can.
func Free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", addr)
	if err == nil {
		err = u.Close()
	}
	return errors.Join(err, l.Close())
}
