// Package balancer keeps the members of groups what they should be. The leader
// of the meta group places: it computes where all groups should be and writes
// the targets that changed. The leader of each group reconciles: it writes who
// the members are to the cluster's metadata, and goes one step at a time towards
// the target: add a learner under a new replica id, wait until it caught up,
// then promote it and remove the replica it stands for in one joint change.
// Without a target a group stays where it is, except that a node that came back
// empty under its name takes its own place.
//
// Decide is a pure function of what is true now. No plan is kept: whoever
// leads next looks again and goes on from there.
package balancer
