package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// ExportLines writes the records below o.Prefix as JSON lines, in key order.
func ExportLines(ctx context.Context, out io.Writer, o Options) (Summary, error) {
	r := newRun(o)
	return r.finish(r.exportLines(ctx, out, ""))
}

// ExportFile is ExportLines into a file. With Resume it keeps the complete
// lines that are there and goes on after the last; the rest is then of a
// later snapshot.
func ExportFile(ctx context.Context, name string, o Options) (Summary, error) {
	r := newRun(o)
	flags := os.O_RDWR | os.O_CREATE
	if !o.Resume {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return Summary{}, err
	}
	last := ""
	if o.Resume {
		last, err = r.continueFile(f)
	}
	if err == nil {
		err = r.exportLines(ctx, f, last)
	}
	return r.finish(errors.Join(err, f.Close()))
}

// continueFile cuts a torn last line and returns the key of the one before.
func (r *run) continueFile(f *os.File) (last string, err error) {
	in := bufio.NewReaderSize(f, 1<<20)
	var good int64
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > record.MaxLineBytes {
			return "", fmt.Errorf("%w: a line of %s is longer than %d bytes", record.ErrBad, f.Name(), record.MaxLineBytes)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		j, err := record.Parse(bytes.TrimSpace(line))
		if err != nil {
			return "", fmt.Errorf("%s is not an export to resume: %w", f.Name(), err)
		}
		good += int64(len(line))
		line, last = line[:0], j.Key
		r.count(func(s *Summary) { s.Resumed++ })
	}
	if err := f.Truncate(good); err != nil {
		return "", err
	}
	_, err = f.Seek(good, io.SeekStart)
	return last, err
}

// exportLines writes the records after the key last.
func (r *run) exportLines(ctx context.Context, out io.Writer, last string) error {
	total, err := r.total(ctx)
	if err != nil {
		return err
	}
	r.Progress.Phase("export", total-r.sum.Resumed, 0)
	w := bufio.NewWriterSize(out, 1<<20)
	err = r.pages(ctx, last, nil, func(p client.Page) error {
		for _, rec := range p.Records {
			if err := r.exportLine(w, rec); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, w.Flush())
}

func (r *run) exportLine(w io.Writer, rec client.Record) error {
	if sum := record.Checksum(rec.Value); r.Verify && sum != rec.Checksum {
		return fmt.Errorf("%w: key %q: value has checksum %08x, its record says %08x", ErrMismatch, rec.Key, sum, rec.Checksum)
	}
	line := record.From(rec, true)
	line.Lease, line.Created = "", 0 // of this cluster only
	if err := record.Write(w, line); err != nil {
		return err
	}
	n := int64(len(rec.Value))
	r.count(func(s *Summary) {
		s.Items++
		s.Bytes += n
		if r.Verify {
			s.Verified++
		}
	})
	r.Progress.Add(1, n)
	return nil
}
