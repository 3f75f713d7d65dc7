package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bank is accounts between which transactions move money: whoever sees all of them
// at one moment sees the same sum.
type Bank struct {
	Accounts []string
	Total    int
}

// Sighting is what one reader found in all accounts.
type Sighting struct {
	Client int
	Span
	// How it read: a transaction, a list.
	How      string
	Balances map[string]int
}

// Judge says what is wrong with a sighting, nil for nothing.
func (b Bank) Judge(s Sighting) *Violation {
	var wrong []string
	sum := 0
	for _, name := range b.Accounts {
		balance, there := s.Balances[name]
		if !there {
			wrong = append(wrong, name+" is missing")
		}
		sum += balance
	}
	if sum != b.Total {
		wrong = append(wrong, fmt.Sprintf("together %d, not %d", sum, b.Total))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Balances)) {
		if !slices.Contains(b.Accounts, name) {
			wrong = append(wrong, name+" is no account")
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return &Violation{"bank", fmt.Sprintf("%s of client %d, %s: %v: %s", s.How, s.Client, s.Span, s.Balances, strings.Join(wrong, ", "))}
}
