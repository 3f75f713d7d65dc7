// Package client is the Go SDK of kvstore.
//
// A Client connects to any nodes of a cluster, learns from them which node
// leads which keys, and from then on sends writes to leaders and reads where
// Config.Read says. Use one Client per program: concurrent callers share
// frames on one stream per node, which is where throughput comes from.
//
//	c, err := client.New(ctx, client.Config{Endpoints: []string{"127.0.0.1:8081"}})
//	if err != nil { ... }
//	defer c.Close()
//	_, err = c.Put(ctx, "greeting", []byte("hello"), client.IfAbsent())
//	rec, err := c.Get(ctx, "greeting")
//
// # Guarantees
//
//   - A write that returned nil is on the disks of a quorum.
//   - A read is linearizable from every replica (Leader, Any, Nearest): it sees
//     every write that was acknowledged before it began. WithMaxStaleness gives
//     that up for a bound on the age; Record.Read says what was served.
//   - A write is executed at most once. It is repeated only when it certainly
//     was not executed: it never left this process, or the server said so
//     (wrong_leader, unavailable, overloaded, a stream it ended to stop).
//   - A write whose answer was lost, because its connection ended or its
//     deadline passed after it was sent, fails with ErrUnknownOutcome and is
//     never repeated, not even under a condition: read the key, or repeat it
//     with IfRevision when a second execution would do harm.
//   - Reads are repeated on other nodes until the deadline.
//   - Batches are atomic per group; Atomic makes them all or nothing and is
//     refused across groups.
//   - Values are sent with their CRC32C and verified when they come back.
//   - List, Scan and Count see one snapshot over all pages.
//
// # Deadlines and failures
//
// A context's deadline bounds an operation with all its attempts and travels
// to the server; without one Config.Timeout applies. Failures are *Error
// values with the codes of docs/errors.md, and match the package's sentinels:
//
//	if errors.Is(err, client.ErrConditionFailed) { ... }
//
// A node that closes its connections is left at once. One that falls silent is
// probed after Config.ProbeAfter and left when the probe fails, by default
// within a second: reads in flight on it move to other nodes, writes that were
// sent wait for their answer or deadline. It is used again when a probe
// succeeds.
//
// Everything is bounded: what waits on a connection (Config.MaxPending,
// Config.MaxPendingBytes, then ErrOverloaded), what one frame carries, and how
// long and how often anything is repeated.
package client
