// Package invariant states broken invariants loudly and names the planted bugs
// that prove the simulation's checkers.
package invariant

import "fmt"

// Assert panics with the formatted values when ok is false. It stays on in
// production: going on with a broken invariant loses data.
func Assert(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}

// Bug is a set of planted bugs. Production code runs with none; the simulation
// plants one at a time and must find it.
type Bug uint32

// The planted bugs (RELIABILITY 1).
const (
	// BugAckBeforeFsync delivers raft's durability responses before the sync.
	BugAckBeforeFsync Bug = 1 << iota
	// BugAckBeforeQuorum answers writes when they are proposed.
	BugAckBeforeQuorum
	// BugHardStateLost does not write terms and votes.
	BugHardStateLost
	// BugEvaluateEarly evaluates before an entry of the own term is applied.
	BugEvaluateEarly
	// BugOverlayKept keeps the overlay of a dropped proposal.
	BugOverlayKept
	// BugRefusalUnconfirmed answers failed conditions without a ReadIndex.
	BugRefusalUnconfirmed
	// BugFollowerReadEarly reads on a follower without waiting for apply.
	BugFollowerReadEarly
	// BugRefusalInFlight answers a refusal seen against an in-flight write.
	BugRefusalInFlight
	// BugReplaySkipped starts at the commit index instead of the checkpoint.
	BugReplaySkipped
	// BugSnapshotUndurable acknowledges a snapshot before it is durable.
	BugSnapshotUndurable
	// BugHalfEntry publishes in the middle of an entry.
	BugHalfEntry
	// BugRemovedVanishes gives a replica up as soon as it knows that it was taken
	// out, before the others know it for good.
	BugRemovedVanishes
	// BugCommitForgotten writes entries without the commit index that was known
	// before them.
	BugCommitForgotten
	// BugLeadStalled keeps leading on a disk that hangs.
	BugLeadStalled
)

// Has reports whether all bugs of x are planted in b.
func (b Bug) Has(x Bug) bool { return b&x != 0 }
