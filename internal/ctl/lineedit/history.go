package lineedit

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

const (
	historyLines   = 1000
	historyLineMax = 4096 // longer lines are not worth keeping
)

// history keeps lines across runs in a file, readable by its owner only.
// Lines that begin with a blank are not kept. It implements term.History.
type history struct {
	lines []string // oldest first
	file  string   // empty for none
}

// loadHistory reads the file and shortens it when it has grown.
func loadHistory(file string) *history {
	h := &history{file: file}
	f, err := os.Open(file)
	if err != nil {
		return h
	}
	in := bufio.NewScanner(f)
	total := 0
	for in.Scan() {
		h.push(in.Text())
		total++
	}
	_ = f.Close()
	if total > 2*historyLines {
		_ = os.WriteFile(file, []byte(strings.Join(h.lines, "\n")+"\n"), 0o600) // a history is a convenience
	}
	return h
}

func (h *history) push(line string) bool {
	if strings.TrimSpace(line) == "" || line[0] == ' ' || len(line) > historyLineMax ||
		len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return false
	}
	h.lines = append(h.lines, line)
	if len(h.lines) > historyLines {
		h.lines = h.lines[1:]
	}
	return true
}

// Add keeps a line.
func (h *history) Add(line string) {
	if !h.push(line) || h.file == "" || strings.ContainsAny(line, "\r\n") {
		return
	}
	if os.MkdirAll(filepath.Dir(h.file), 0o700) != nil {
		return
	}
	f, err := os.OpenFile(h.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(line + "\n")
	_ = f.Close()
}

// Len counts the lines.
func (h *history) Len() int { return len(h.lines) }

// At returns a line, 0 for the newest.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
