package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"kvstore/internal/ctl/record"
)

const journalVersion = 1

// header is a journal's first line: what the journal is about. A journal with
// another header belongs to other work.
type header struct {
	Journal   int    `json:"journal"`
	Kind      string `json:"kind"`
	Source    string `json:"source"`
	Target    string `json:"target"`
	Namespace string `json:"namespace"`
}

// mark is any later line: a finished key with the etag of its source, or the
// line up to which everything is finished.
type mark struct {
	Key  string `json:"k,omitempty"`
	ETag string `json:"e,omitempty"`
	Line int64  `json:"line,omitempty"`
}

// journal remembers finished items across runs. It is a help, not a promise:
// an item missing from it is transferred again, so its lines are not synced,
// and a line torn by a crash is skipped.
type journal struct {
	path string
	done map[string]string // etag by key; not changed after open
	line int64

	mu  sync.Mutex // guards out and err
	out *os.File
	err error
}

// openJournal opens the journal at path. With resume the marks of the same
// work are kept; otherwise it starts empty.
func openJournal(path string, h header, resume bool) (*journal, error) {
	h.Journal = journalVersion
	j := &journal{path: path, done: map[string]string{}}
	if resume {
		if err := j.load(h); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := j.start(h); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// start opens the file for appending and writes the header of a new one. The
// empty line ends a line that a crash cut.
func (j *journal) start(h header) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	fresh := len(j.done) == 0 && j.line == 0
	if fresh {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(j.path, flags, 0o600)
	if err != nil {
		return err
	}
	if fresh {
		err = record.Write(f, h)
	} else {
		_, err = io.WriteString(f, "\n")
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.out = f
	return nil
}

func (j *journal) load(want header) error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := record.NewLines(f)
	first, err := lines.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	var have header
	if err != nil || json.Unmarshal(first, &have) != nil || have.Journal != journalVersion {
		return fmt.Errorf("journal: %s is not a journal of kvctl; remove it or name another with --journal", j.path)
	}
	if have != want {
		return fmt.Errorf("journal: %s is about %s of %s to %s (namespace %s); name another with --journal, or start without --resume",
			j.path, have.Kind, have.Source, have.Target, have.Namespace)
	}
	return j.loadMarks(lines)
}

func (j *journal) loadMarks(lines *record.Lines) error {
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		var m mark
		if json.Unmarshal(line, &m) != nil {
			continue // torn
		}
		if m.Key != "" {
			j.done[m.Key] = m.ETag
		}
		j.line = max(j.line, m.Line)
	}
}

// has says whether key was finished from a source with this etag. A nil
// journal has nothing.
func (j *journal) has(key, etag string) bool {
	if j == nil {
		return false
	}
	have, ok := j.done[key]
	return ok && have == etag
}

// finished notes a key.
func (j *journal) finished(key, etag string) { j.write(mark{Key: key, ETag: etag}) }

// reached notes that all lines up to n are finished.
func (j *journal) reached(n int64) { j.write(mark{Line: n}) }

func (j *journal) write(m mark) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = record.Write(j.out, m)
	}
}

// close closes the file and, when the work is complete, removes it.
func (j *journal) close(complete bool) error {
	if j == nil {
		return nil
	}
	err := errors.Join(j.err, j.out.Close())
	if complete {
		err = errors.Join(err, os.Remove(j.path))
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
