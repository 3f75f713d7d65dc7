package lineedit

import (
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// Editor reads lines from a terminal with editing, history and completion.
type Editor struct {
	// Complete returns the lines that what was typed may become.
	Complete func(line string) []string

	fd   int
	term *term.Terminal
}

// Open edits lines on the terminal fd, read from in and shown on out. The
// history is kept in historyFile; empty for none.
func Open(fd int, in io.Reader, out io.Writer, historyFile string) *Editor {
	e := &Editor{fd: fd, term: term.NewTerminal(screen{&clearOnInterrupt{in: in}, out}, "")}
	e.term.History = loadHistory(historyFile)
	e.term.AutoCompleteCallback = e.complete
	return e
}

// screen joins the two halves of a terminal.
type screen struct {
	io.Reader
	io.Writer
}

// Line reads one line; the terminal is in raw mode only meanwhile. Ctrl-C
// gives an empty line, Ctrl-D on an empty line io.EOF. When ctx ends first, its
// error is returned and the read goes on until the terminal closes, which
// nothing can prevent: the caller is expected to end the program.
func (e *Editor) Line(ctx context.Context, prompt string) (string, error) {
	state, err := term.MakeRaw(e.fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() { _ = term.Restore(e.fd, state) }()
	if w, h, err := term.GetSize(e.fd); err == nil && w > 0 && h > 0 {
		_ = e.term.SetSize(w, h) // keeps the old size
	}
	e.term.SetPrompt(prompt)
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := e.term.ReadLine()
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// complete is called for every key. Tab completes to what all candidates have
// in common, and shows them when that is nothing new.
func (e *Editor) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || e.Complete == nil || pos != len(line) {
		return "", 0, false
	}
	candidates := e.Complete(line)
	if len(candidates) == 0 {
		return line, pos, true
	}
	common := candidates[0]
	for _, c := range candidates[1:] {
		for !strings.HasPrefix(c, common) {
			common = common[:len(common)-1]
		}
	}
	if len(common) > len(line) {
		return common, len(common), true
	}
	if len(candidates) > 1 {
		_, _ = fmt.Fprintln(e.term, strings.Join(candidates, "\n"))
	}
	return line, pos, true
}

// clearOnInterrupt turns Ctrl-C into: end of line, delete the line, return.
// term.Terminal would take it for the end of the input.
type clearOnInterrupt struct {
	in      io.Reader
	pending []byte
}

const ctrlC = 3

func (c *clearOnInterrupt) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		buf := make([]byte, max(len(p), 1))
		n, err := c.in.Read(buf)
		if n == 0 {
			return 0, err
		}
		for _, b := range buf[:n] {
			if b == ctrlC {
				c.pending = append(c.pending, 5, 21, '\r')
				continue
			}
			c.pending = append(c.pending, b)
		}
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}
