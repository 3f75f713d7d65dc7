package servertest

import (
	"context"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/lease"
)

// Leases are those of the store, without a keeper: none ends by itself. Keys are
// not attached by the map, which knows no guarded writes.
func (b *Backend) Leases() *lease.Service {
	s, err := lease.New(lease.Options{Store: b, Host: noReplicas{}, Clock: system.Clock(), Rand: system.Rand()})
	if err != nil {
		panic(err)
	}
	return s
}

// noReplicas is the host of a map.
type noReplicas struct{}

func (noReplicas) Groups() []host.GroupStatus { return nil }

func (noReplicas) StaleRead(keyspace.GroupID, time.Duration) (host.ReadPoint, error) {
	return host.ReadPoint{}, fault.New(fault.Unavailable, "there are no replicas")
}

func (noReplicas) ScanGroup(context.Context, keyspace.GroupID, host.ScanRequest, func([]byte, *format.Record)) (host.ScanPage, error) {
	return host.ScanPage{}, fault.New(fault.Unavailable, "there are no replicas")
}
