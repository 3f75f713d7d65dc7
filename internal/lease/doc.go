// Package lease grants leases, keeps them alive and ends them (DESIGN 10). It
// writes through the router like any client; a lease is three kinds of ordinary
// records in the reserved namespace of leases (keyspace.LeaseKey and its like):
//
//   - The lease itself expires as any key with a TTL does: at an absolute deadline
//     on the clock of its group. It is kept alive by a conditional write, which a
//     lease that has expired does not pass. So the order of the log decides what is
//     alive, no leader's memory; a failover neither shortens nor lengthens a lease,
//     and one that has ended does not come back (ASKS D1, D2).
//   - The mark is written with the lease, has no deadline, and goes last. An id that
//     has one cannot be granted: nobody gets a lease while keys of an earlier one of
//     that name are still being deleted.
//   - An attachment for each key is written in the transaction that puts the key
//     (router/guarded.go), under a check that the lease exists.
//
// A mark without its lease is a lease that has ended, and is all that the keeper
// needs to know. Ending is: delete each attached key, if it still has this lease and
// the mark is still this one; then the attachments; then the mark. Each step may be
// repeated, by anyone, at any time; a node that was stopped between two steps and
// goes on much later finds another mark, or none, and changes nothing. A revocation
// begins with one more step: the lease goes and the mark says so, in one entry.
package lease
