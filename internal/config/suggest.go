package config

import (
	"path"
	"strings"
)

// suggestKey returns "; did you mean ...?" for the key closest to an unknown
// one: the same last part elsewhere, or few letters away.
func suggestKey(unknown string) string {
	best, distance := "", len(unknown)/3+1
	for _, o := range options {
		d := editDistance(unknown, o.key)
		if lastPart(o.key) == lastPart(unknown) {
			d = 1
		}
		if d < distance {
			best, distance = o.key, d
		}
	}
	return question(best)
}

func suggestEnv(unknown string, keys map[string]string) string {
	best, distance := "", len(unknown)/3+1
	for _, name := range sortedKeys(keys) {
		if d := editDistance(unknown, name); d < distance {
			best, distance = name, d
		}
	}
	return question(best)
}

func question(best string) string {
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

func lastPart(key string) string {
	return path.Base(strings.ReplaceAll(key, ".", "/"))
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
