// Package router takes operations from any front end and brings each to the
// replica that can serve it: key -> slot -> group -> leader (DESIGN 4, 7).
//
// The unit is a frame: the operations that arrived together. A frame is
// planned once (validate, resolve the namespace, split by group) and then
// leaves in as few steps as there are destinations: one SubmitAll for all
// local writes, one ReadIndex per local group for all its reads, one queue
// entry per peer for the rest. Nothing costs a goroutine per operation: writes
// are answered on the host's loop, forwarded operations by the receiver of the
// peer's stream, reads by the one goroutine that drives the frame.
//
// What may be repeated is decided in one place (outcome.go): an answer that
// says "not executed" (wrong_leader, unavailable) is tried again until the
// deadline; a read is tried again elsewhere after anything that may pass; a
// write whose outcome may be unknown is never repeated, its caller is told
// unknown_outcome.
//
// A forwarded operation is never forwarded again by its receiver: it answers
// wrong_leader with the leader it knows, and the first node follows that hint.
// So an operation crosses the network at most twice per attempt, and no two
// nodes with old views send it back and forth.
package router
