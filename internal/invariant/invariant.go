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
	// BugWitnessVotesBlind lets a witness vote without a look at its log.
	BugWitnessVotesBlind
	// BugWitnessCounted counts what is withheld from a witness as acknowledged.
	BugWitnessCounted
	// BugWitnessCampaigns lets a witness ask for votes.
	BugWitnessCampaigns
	// BugLeaveThawed lets a group give up slots whose freeze was undone.
	BugLeaveThawed
	// BugLastTailMissing makes the receiver of slots ready without what changed
	// between the copy and the freeze.
	BugLastTailMissing
	// BugTailFromView begins the tail behind the log index at which a view is whole,
	// where newer writes than the view's may be.
	BugTailFromView
	// BugReadUnowned reads slots that the group does not own.
	BugReadUnowned
	// BugWriteUnowned writes slots that the group does not own.
	BugWriteUnowned
	// BugLockForgotten prepares transactions without their locks.
	BugLockForgotten
	// BugVolatileNo refuses to prepare, or poisons, without a record of it.
	BugVolatileNo
	// BugOneRound says of every range that nothing of it changed between the two
	// rounds of a read over several groups.
	BugOneRound
	// BugLagVotes counts what a leader proposed as on its disk before it is, where
	// its sync waits for another one.
	BugLagVotes
	// BugUntouched takes what was fetched of a key for its newest version, whoever wrote
	// it since.
	BugUntouched
	// BugSweepBlind deletes what the index of deadlines names as due without a look
	// at the deadline that the record has by now.
	BugSweepBlind
	// BugJoinLate lets a watch that goes on join the live ones without the latest
	// events.
	BugJoinLate
	// BugFeedUnheld tells those who watch of writes in the order of the log, also of
	// transactions that are committed below what came before.
	BugFeedUnheld
	// BugPromiseBlind takes a clock for complete before the log up to it was read.
	BugPromiseBlind
)

// Has reports whether all bugs of x are planted in b.
func (b Bug) Has(x Bug) bool { return b&x != 0 }
