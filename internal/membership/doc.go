// Package membership decides what a node with an empty data directory does:
// found the cluster together with the other first members, or join the cluster
// that exists (DESIGN 5, 11).
//
// # The decision
//
// Every data directory has a life, drawn when it is made. First members probe
// each other until the answers decide:
//
//   - Somebody is not empty and was founded with a list that holds this life
//     under this name: this node is slow, not wiped. It founds the same
//     cluster, from exactly that list.
//   - Somebody is not empty and its list has another life for this name, or no
//     such name: this directory was wiped or never took part. It joins.
//   - All are empty: each sees the same lives, says so, and founds the cluster
//     when everyone has said so.
//
// Nobody answers for a member that is silent: without it, only the first two
// cases decide.
//
// # Why all must see the same
//
// One round of "all are empty" is not enough. If B is wiped between A's probe
// and C's, A would found a cluster with B's old life and C one with its new
// life. So a member founds a list only after each member on it has said, while
// empty, that it sees exactly this list. Three facts make two different lists
// impossible, unless everyone who founded the first has been wiped since:
//
//   - What a member sees only moves forward: a life that ended before the next
//     one of that name began is never seen after it.
//   - A member that founds a list says that list for ever; its decision and
//     its answers change together.
//   - To found a second list, every member still alive from the first must
//     have said the second one, before or after the first. Before contradicts
//     the first fact, after the second.
//
// The simulation in decide_model_test.go walks every interleaving.
//
// Decide is pure. Agent probes, answers probes and joins.
package membership
