// Package moment reads the text by which users name a moment of the past, for
// REST and kvctl.
package moment

import (
	"strconv"
	"strings"
	"time"

	"kvstore/internal/fault"
)

// Moment is a revision, or a time in Unix milliseconds, below 0 relative to now
// by the clock of the node that is asked; both are 0 for now.
type Moment struct {
	Revision uint64
	TimeMs   int64
}

// firstMilli divides times: as milliseconds it is March of 1973, as seconds the year
// 5138. What is below are seconds, which nobody means as milliseconds.
const firstMilli = 100_000_000_000

// firstRevision divides numbers: as milliseconds it is the year 33658, as a
// revision June of 1970.
const firstRevision = 1_000_000_000_000_000

// Parse reads a revision, a time as in 2027-01-31T12:00:00Z, Unix milliseconds, or
// how long ago as in -5m. Numbers below 10^15 are milliseconds, and refused below
// 10^11.
func Parse(text string) (Moment, error) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n > 0 {
		switch {
		case n < firstMilli:
			return Moment{}, fault.New(fault.InvalidArgument, "a moment in Unix time is in milliseconds, and this seems to be seconds: add 000", "actual", text)
		case n < firstRevision:
			return Moment{TimeMs: int64(n)}, nil // below 2^63
		}
		return Moment{Revision: n}, nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		if d, err := time.ParseDuration(ago); err == nil && d >= time.Millisecond && ago[0] != '+' {
			return Moment{TimeMs: -d.Milliseconds()}, nil
		}
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil && t.UnixMilli() > 0 {
		return Moment{TimeMs: t.UnixMilli()}, nil
	}
	return Moment{}, fault.New(fault.InvalidArgument,
		"a moment is a revision, a time such as 2027-01-31T12:00:00Z, Unix milliseconds, or how long ago such as -5m", "actual", clip(text))
}

// clip bounds text that an error repeats.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
