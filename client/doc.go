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
//   - A read is linearizable from every replica (Auto, Leader, Any, Nearest): it sees
//     every write that was acknowledged before it began. WithMaxStaleness gives
//     that up for a bound on the age; Record.Read says what was served.
//   - A write is executed at most once. It is repeated only when it certainly
//     was not executed: it never left this process, or the server said so
//     (wrong_leader, unavailable, overloaded, a stream it ended to stop).
//   - What must not be executed twice carries a request id, which the servers
//     remember for ten minutes: transactions that write, conditional puts and
//     deletes, atomic batches, and what the caller names (WithRequestID,
//     Txn.RequestID). When the answer of one is lost, it is sent again under its
//     id as long as the context allows, which tells what became of it and
//     executes nothing twice. When the context ends first the error is
//     ErrUnknownOutcome; RequestIDOf and DescribeRequest tell the rest. See
//     docs/transactions.md; Config.NoRequestIDs turns it off.
//   - Another write whose answer was lost (a put or delete without condition, a
//     touch, a batch that is not atomic), because its connection ended or its
//     deadline passed after it was sent, fails with ErrUnknownOutcome and is
//     never repeated: read the key, or repeat the write where that does no harm.
//   - Reads are repeated on other nodes until the deadline.
//   - Batches are atomic per group; Atomic makes them all or nothing, whatever
//     the groups of their keys.
//   - Transactions (Txn, Transact) are all or nothing and isolated from every
//     other write, whether their keys are of one group or of several. One group
//     is the fastest; keys with the same {hash part} are in one.
//   - Values are sent with their CRC32C and verified when they come back.
//   - List, Scan and Count see one snapshot over all pages: the state of all
//     groups at one moment of the first call. WithConsistency and WithMaxStaleness
//     choose less; Page.Consistency says what was served.
//   - Watch yields every change once and in order, over reconnects, or ends with
//     an error that says why it cannot.
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
