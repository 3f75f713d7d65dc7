package experiment

import (
	"fmt"
	"strings"
)

// Table is one of Markdown: the first column is text, the others are figures.
type Table struct {
	head []string
	rows [][]string
}

// NewTable makes an empty table.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds cells, as many as the head has.
func (t *Table) Row(cells ...string) {
	if len(cells) != len(t.head) {
		panic(fmt.Sprintf("experiment: a row of %d cells under %d heads: %q", len(cells), len(t.head), cells))
	}
	t.rows = append(t.rows, cells)
}

func (t *Table) String() string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// Verdict is a claim, what was measured, and whether the claim holds.
type Verdict struct {
	Claim  string `json:"claim"`
	Figure string `json:"figure"`
	Met    bool   `json:"met"`
}

// Verdicts as a table.
func Verdicts(all []Verdict) string {
	t := NewTable("claim", "measured", "verdict")
	for _, v := range all {
		t.Row(v.Claim, v.Figure, Met(v.Met))
	}
	return t.String()
}

// Met says whether something is.
func Met(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}
