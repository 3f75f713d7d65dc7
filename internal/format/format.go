// Package format holds every persisted and wire format in one place: records,
// log entries, applied states, snapshot streams and tokens. Each begins with a
// format version (DESIGN 13); messages only grow.
package format

// Version is the format version this binary writes. A group writes a newer
// one only after its log holds the finalize entry.
const Version = 1

// MinVersion is the oldest format version this binary reads.
const MinVersion = 1
