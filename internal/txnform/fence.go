package txnform

import (
	"net/url"
	"strconv"
	"strings"

	api "kvstore/api/kvstore/v1"
)

// ParseFence reads NAMESPACE/KEY@REVISION, with the key percent-encoded; problem says
// what is wrong with another text.
func ParseFence(text string) (fence *api.Fence, problem string) {
	space, rest, ok := strings.Cut(text, "/")
	at := strings.LastIndexByte(rest, '@')
	if !ok || space == "" || at <= 0 {
		return nil, "must be NAMESPACE/KEY@REVISION, with the key percent-encoded"
	}
	key, err := url.PathUnescape(rest[:at])
	if err != nil {
		return nil, "is not well percent-encoded"
	}
	rev, err := strconv.ParseUint(rest[at+1:], 10, 64)
	if err != nil || rev == 0 {
		return nil, "must end with @ and a revision"
	}
	return &api.Fence{Namespace: space, Key: key, Revision: rev}, ""
}
