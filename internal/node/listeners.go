package node

import (
	"errors"
	"fmt"
	"net"

	"kvstore/internal/config"
)

// listeners are the bound ports.
type listeners struct {
	http, grpc, peer, metrics net.Listener
	gossip                    net.PacketConn
}

// openListeners binds all ports, and reports all that cannot be.
func openListeners(l config.Listen) (*listeners, error) {
	out := &listeners{}
	var errs []error
	for _, one := range []struct {
		key, addr string
		into      *net.Listener
	}{
		{"listen.http", l.HTTP, &out.http},
		{"listen.grpc", l.GRPC, &out.grpc},
		{"listen.peer", l.Peer, &out.peer},
		{"listen.metrics", l.Metrics, &out.metrics},
	} {
		lis, err := net.Listen("tcp", one.addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one.key, err))
			continue
		}
		*one.into = lis
	}
	var err error
	if out.gossip, err = net.ListenPacket("udp", l.Gossip); err != nil {
		errs = append(errs, fmt.Errorf("listen.gossip: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		out.close()
		return nil, err
	}
	return out, nil
}

// close closes what no server has closed; closing twice does no harm.
func (l *listeners) close() {
	for _, lis := range []net.Listener{l.http, l.grpc, l.peer, l.metrics} {
		if lis != nil {
			_ = lis.Close()
		}
	}
	if l.gossip != nil {
		_ = l.gossip.Close()
	}
}
