// Package meta keeps the cluster's own records: nodes, groups, namespaces and
// jobs, stored as ordinary records of the reserved namespace in group 0 (keys
// and codecs: format/system.go).
//
// Directory is every node's cached copy; the router asks it for each
// operation. Service keeps the copy fresh, writes what this node knows about
// itself, serves the namespace calls, admits nodes, and on the leader of group
// 0 runs jobs.
//
// A namespace's name may be given to another id only when no node can still
// use the old one. So a copy is valid for namespaceValidity after a
// linearizable read, measured on the node's monotonic clock alone, and the job
// that deletes a namespace first waits longer than that. A node that cannot
// read the metadata stops serving named namespaces instead of serving old ids.
package meta
