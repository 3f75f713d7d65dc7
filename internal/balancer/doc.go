// Package balancer keeps the members of groups what they should be. The leader
// of each group reconciles: it writes who the members are to the cluster's
// metadata, and replaces a member whose node was replaced (it came back under
// its name with an empty disk and a new id): add a learner under a new replica
// id, wait until it caught up, then promote it and remove the old replica in
// one joint change.
//
// Decide is a pure function of what is true now. No plan is kept: whoever
// leads next looks again and goes on from there.
package balancer
