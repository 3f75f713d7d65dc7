package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// sizeFlag is a flag in bytes: 1000, 64KB, 16MiB; units are powers of 1,024,
// as in the store's configuration.
type sizeFlag struct{ bytes *int }

func (f sizeFlag) Type() string   { return "size" }
func (f sizeFlag) String() string { return strconv.Itoa(*f.bytes) }

func (f sizeFlag) Set(text string) error {
	digits, factor := text, 1
	for _, u := range []struct {
		names  []string
		factor int
	}{{[]string{"kib", "kb", "k"}, 1 << 10}, {[]string{"mib", "mb", "m"}, 1 << 20}, {[]string{"b"}, 1}} {
		if rest, ok := cutUnit(digits, u.names); ok {
			digits, factor = rest, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 31)
	if err != nil || n > 1<<31/uint64(factor) {
		return fmt.Errorf("%q is no size: want bytes, or a number with KB or MB", text)
	}
	*f.bytes = int(n) * factor
	return nil
}

func cutUnit(text string, names []string) (rest string, ok bool) {
	for _, name := range names {
		if rest, ok := strings.CutSuffix(strings.ToLower(text), name); ok {
			return rest, true
		}
	}
	return text, false
}
