// Package mover drives the moves of slots from one group to another: beside the
// balancer, on every node, for the groups that are led there. The leader of the
// receiving group drives a move; the leader of a group that gave slots away
// forgets the move once the cluster's metadata knows the new owner, and deletes
// what it does not own any more.
//
// Nothing of a move is kept outside the logs of its two groups and the record of
// the slots: Next says from these what to do next, and whoever leads the
// receiver takes that step. So a restart, another leader, a pause or a cancelled
// move need nothing of their own.
package mover
