package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"kvstore/internal/jsondoc"
)

// MaxLineBytes bounds one line: a 16 MB value in which every byte is escaped
// by a backslash, with room for the rest.
const MaxLineBytes = 48 << 20

// Lines reads the non-empty lines of a stream.
type Lines struct {
	r *bufio.Reader
	// number of the last line returned, from 1.
	number int64
	buf    []byte
}

// NewLines reads from r.
func NewLines(r io.Reader) *Lines { return &Lines{r: bufio.NewReaderSize(r, 64<<10)} }

// Number is the number of the line that Next returned last, from 1.
func (l *Lines) Number() int64 { return l.number }

// Next returns the next line that is not blank, without its end; it is valid
// until the next call. The error at the end is io.EOF.
func (l *Lines) Next() ([]byte, error) {
	for {
		line, err := l.read()
		if err != nil {
			return nil, err
		}
		l.number++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

func (l *Lines) read() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		if len(l.buf) > MaxLineBytes {
			return nil, fmt.Errorf("%w: line %d is longer than %d bytes", ErrBad, l.number+1, MaxLineBytes)
		}
		switch {
		case err == nil:
			return l.buf, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(l.buf) > 0:
			return l.buf, nil
		default:
			return nil, err
		}
	}
}

// strict decodes exactly one JSON value without unknown members.
func strict(line []byte, v any) error {
	err := jsondoc.Decode(line, v)
	var e *jsondoc.Error
	if errors.As(err, &e) {
		return errors.New(e.Fault().Message) // the caller knows the line
	}
	return err
}

// Write writes v as one line of JSON, leaving <, > and & as they are.
func Write(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
