package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written like 64MB. Units are powers of 1,024:
// B, KB, MB, GB, TB (KiB, MiB, GiB and TiB mean the same).
type Size int64

// Sizes in bytes.
const (
	KB Size = 1 << 10
	MB Size = 1 << 20
	GB Size = 1 << 30
	TB Size = 1 << 40
)

var sizeUnits = []struct {
	suffix string
	bytes  Size
}{
	{"KIB", KB}, {"MIB", MB}, {"GIB", GB}, {"TIB", TB},
	{"KB", KB}, {"MB", MB}, {"GB", GB}, {"TB", TB}, {"B", 1},
}

// ParseSize reads a size such as "64MB", "1.5GB" or "1024".
func ParseSize(s string) (Size, error) {
	text, unit := strings.ToUpper(strings.TrimSpace(s)), Size(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(unit) {
			return 0, fmt.Errorf("size %q is out of range", s)
		}
		return Size(n) * unit, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return Size(f * float64(unit)), nil
}

// String writes s with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		name  string
		bytes Size
	}{{"TB", TB}, {"GB", GB}, {"MB", MB}, {"KB", KB}} {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
