package rest

import (
	"net/http"
	"slices"
	"strconv"
)

// safetyHeaders protect a write: it happens only while something holds, or only
// once. A write that ran without the one that was sent would do what its caller
// has excluded, so a route that writes honours such a header or refuses it; and one
// without a value, as a variable makes that is not set, is refused by all.
var safetyHeaders = []string{headerFence, headerRequestID, "If-Match", "If-None-Match"}

var (
	takesConditions = []string{"If-Match", "If-None-Match"}
	takesFence      = []string{headerFence, headerRequestID}
	takesAllSafety  = safetyHeaders
)

// checkSafety refuses the safety headers that a route would ignore.
func (rt *route) checkSafety(h http.Header) error {
	if !rt.writes {
		return nil
	}
	for _, name := range safetyHeaders {
		values := h.Values(name)
		switch {
		case len(values) == 0:
		case !slices.Contains(rt.safety, name):
			return badHeader(name, "is not supported by this operation, which would happen without its protection"+rt.instead(), values[0])
		case len(values) > 1 && (name == headerFence || name == headerRequestID):
			return badHeader(name, "is given more than once", strconv.Itoa(len(values)))
		case values[0] == "":
			return badHeader(name, "is empty", "")
		}
	}
	return nil
}

// instead says what has the protection that a route does not.
func (rt *route) instead() string {
	if rt.name == "Touch" {
		return "; a transaction with a TOUCH has it"
	}
	return ""
}
