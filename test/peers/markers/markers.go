// Package markers fills marked places of documents.
package markers

import (
	"fmt"
	"os"
	"strings"
)

// Fill replaces what is between the lines <!-- name:begin --> and
// <!-- name:end --> of a file.
func Fill(file, name, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	before, rest, found := strings.Cut(string(old), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no place for %q: %s ... %s", file, name, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, []byte(before+begin+strings.TrimRight(text, "\n")+"\n"+end+after), 0o644) //nolint:gosec // documents are for everybody
}
