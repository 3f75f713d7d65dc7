// Package lineedit is what a line by line tool needs beside its commands:
// splitting into words, editing on a terminal, completion and a history file.
package lineedit

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnfinished says that a quote or a backslash has no end.
var ErrUnfinished = errors.New("unfinished quote or backslash")

const special = " \t\n'\"\\#"

// Plain says whether a word means itself without quotes.
func Plain(word string) bool {
	return word != "" && !strings.ContainsAny(word, special)
}

// Split cuts a line into words as a shell does: blanks separate; 'single
// quotes' keep everything; "double quotes" know \n, \t, \r, \" and \\; a
// backslash elsewhere keeps the next character.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false
	for i := 0; i < len(line); {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			if started {
				words, started = append(words, word.String()), false
				word.Reset()
			}
			i++
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, ErrUnfinished
			}
			word.WriteString(line[i+1 : i+1+end])
			started = true
			i += end + 2
		case '"':
			n, err := double(line[i+1:], &word)
			if err != nil {
				return nil, err
			}
			started = true
			i += n + 1
		case '\\':
			if i+1 == len(line) {
				return nil, ErrUnfinished
			}
			word.WriteByte(line[i+1])
			started = true
			i += 2
		default:
			word.WriteByte(c)
			started = true
			i++
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// double reads up to the closing double quote and returns its end.
func double(s string, word *strings.Builder) (int, error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i + 1, nil
		case '\\':
			i++
			if i == len(s) {
				return 0, ErrUnfinished
			}
			c, ok := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '"': '"', '\\': '\\'}[s[i]]
			if !ok {
				return 0, fmt.Errorf("unknown escape \\%c in double quotes", s[i])
			}
			word.WriteByte(c)
		default:
			word.WriteByte(s[i])
		}
	}
	return 0, ErrUnfinished
}
