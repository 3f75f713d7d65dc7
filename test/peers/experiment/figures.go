package experiment

import (
	"fmt"
	"slices"
	"strings"

	"kvstore/test/peers/figures"
)

// SpreadBy is the median and the extremes of one figure of many.
func SpreadBy[T any](all []T, figure func(T) float64) figures.Spread {
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = figure(v)
	}
	return figures.SpreadOf(values)
}

// MB is a number of bytes in units of 1,048,576.
func MB(bytes int64) string { return figures.Thousands(float64(bytes) / (1 << 20)) }

// Codes writes errors by code, "0" when there were none.
func Codes(errors map[string]int64) string {
	var all []string
	for code, n := range errors {
		if n > 0 {
			all = append(all, fmt.Sprintf("%s %s", code, figures.Thousands(float64(n))))
		}
	}
	if len(all) == 0 {
		return "0"
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
