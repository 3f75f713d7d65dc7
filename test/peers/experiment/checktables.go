package experiment

import (
	"fmt"
	"strings"
)

// CheckTables reports what is wrong with the form of Markdown that should
// hold so many tables: rows have as many cells as their head, none is empty,
// and every table has rows.
func CheckTables(text string, want int) error {
	tables, row, columns := 0, 0, 0
	for line := range strings.Lines(text + "\n") {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "|") {
			if row == 1 || row == 2 {
				return fmt.Errorf("table %d has no rows", tables)
			}
			row = 0
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		row++
		if row == 1 {
			tables, columns = tables+1, len(cells)
		}
		if len(cells) != columns {
			return fmt.Errorf("table %d: %d cells under %d heads: %s", tables, len(cells), columns, line)
		}
		for _, c := range cells {
			if strings.TrimSpace(c) == "" {
				return fmt.Errorf("table %d: an empty cell: %s", tables, line)
			}
		}
	}
	if tables != want {
		return fmt.Errorf("%d tables, want %d", tables, want)
	}
	return nil
}
