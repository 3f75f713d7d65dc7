package sstable

import (
	"fmt"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// estimated is a History or Runs.
type estimated interface {
	writable
	EstimateBytes(inst keyspace.InstanceID) int64
}

// sizedVersions returns versions of instances 1 to 3, and how many bytes of keys
// and values each has. Instance 1 has small values, 2 large ones, 3 a single record.
func sizedVersions(file int, current bool) (all []placed, bytes map[keyspace.InstanceID]int64) {
	bytes = make(map[keyspace.InstanceID]int64)
	for _, of := range []struct {
		inst        keyspace.InstanceID
		count, size int
	}{{1, 900, 256}, {2, 20, 4096}, {3, 1, 256}} {
		for n := range of.count {
			for rev := keyspace.Revision(3); rev > 0; rev-- {
				v := ver(of.inst, fmt.Sprintf("key %06d", n), 10*keyspace.Revision(file)+rev, 0)
				if v.Value = make([]byte, of.size); !current {
					v.Until = v.Revision + 1
				}
				all = append(all, v)
				bytes[of.inst] += int64(len(v.Key) + len(v.Value))
				if current {
					break
				}
			}
		}
	}
	return all, bytes
}

func wantEstimate(t *testing.T, s estimated, inst keyspace.InstanceID, want int64) {
	t.Helper()
	if got := s.EstimateBytes(inst); got < want/2 || got > 2*want {
		t.Errorf("instance %d: estimate %d, it has %d bytes", inst, got, want)
	}
}

func TestEstimateBytes(t *testing.T) {
	runs := mustOpenRuns(t, simfs.New())
	history := mustOpen(t, simfs.New())
	for _, s := range []estimated{runs, history} {
		sum := make(map[keyspace.InstanceID]int64)
		wantEstimate(t, s, 1, 0)
		for file := range 3 {
			all, bytes := sizedVersions(file, s == estimated(runs))
			mustWrite(t, s, all...)
			mustWrite(t, s, all[0])
			sum[1] += int64(len(all[0].Key) + len(all[0].Value))
			for inst := keyspace.InstanceID(0); inst <= 4; inst++ {
				sum[inst] += bytes[inst]
				wantEstimate(t, s, inst, sum[inst])
			}
		}
	}
	runs.Delete(2)
	wantEstimate(t, runs, 2, 0)
	remove(t, runs)
	wantEstimate(t, runs, 1, 0)
}
