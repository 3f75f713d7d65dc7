// Package watch tells clients what is written: of keys, prefixes and ranges, from
// now on or from a revision or token, in order, whole, without a gap and without
// repeating anything (DESIGN 10, docs/watch.md).
//
// From the log to the client, an event passes: the host's feed of its group, a tap
// (one group, settled), a source (one group or all, merged), the source's index of
// live watches, a stream's queue, and the stream's sender. A watch has a position:
// the revision up to which it was given everything. A live one is where its source
// is. One that begins in the past, or whose stream had no room, is behind; it is
// brought to its source by catchUp, which alone may wait for a stream.
//
// Locks: a source's mutex comes before a stream's; the hub's comes after both.
package watch
