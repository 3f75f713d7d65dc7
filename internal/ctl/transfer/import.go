package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"time"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// ImportDir writes a directory tree below o.Prefix.
func ImportDir(ctx context.Context, dir string, o Options) (Summary, error) {
	r := newRun(o)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Summary{}, err
	}
	if err := r.openJournal(header{Kind: "import dir", Source: abs, Target: o.Prefix, Namespace: o.Namespace}); err != nil {
		return Summary{}, err
	}
	t := &tree{dir: dir, prefix: o.Prefix, bad: r.fail, special: r.special}
	return r.finish(r.importTree(ctx, t))
}

func (r *run) special(name string) {
	r.count(func(s *Summary) { s.Special++ })
	r.Progress.Print("left out, neither file, link nor directory: " + name)
}

func (r *run) importTree(ctx context.Context, t *tree) error {
	var items, bytes int64
	silent := *t
	silent.bad, silent.special = func(string, error) error { return nil }, func(string) {}
	if err := silent.walk(ctx, func(it item) error { items++; bytes += it.size; return nil }); err != nil {
		return err
	}
	r.Progress.Phase("import", items, bytes)
	if err := r.each(ctx, t.walk, r.put); err != nil || !r.Verify {
		return err
	}
	// What could not be written is reported already.
	r.mu.Lock()
	unwritten := maps.Clone(r.failed)
	r.mu.Unlock()
	r.Progress.Phase("verify", items, bytes)
	return r.each(ctx, silent.walk, func(ctx context.Context, it item) error {
		if _, skip := unwritten[it.name]; skip {
			return nil
		}
		if err := r.compare(ctx, it); err != nil {
			return err
		}
		r.Progress.Add(1, it.size)
		return nil
	})
}

// ImportLines writes the records of a stream of JSON lines. etag names the
// stream's content in the journal. Verification reads each record back right
// after its write: a later line may replace it.
func ImportLines(ctx context.Context, name, etag string, in io.Reader, o Options) (Summary, error) {
	r := newRun(o)
	if err := r.openJournal(header{Kind: "import jsonl", Source: name + " " + etag, Target: o.Prefix, Namespace: o.Namespace}); err != nil {
		return Summary{}, err
	}
	return r.finish(r.importLines(ctx, in))
}

func (r *run) importLines(ctx context.Context, in io.Reader) error {
	from := int64(0)
	if r.journal != nil {
		from = r.journal.line
	}
	w := &watermark{next: from + 1, waiting: map[int64]struct{}{}, journal: r.journal}
	defer w.flush()
	return r.each(ctx, r.lines(in, from), func(ctx context.Context, it item) error {
		err := r.put(ctx, it)
		if err == nil && r.Verify {
			err = r.compare(ctx, it)
		}
		w.finished(it.seq, err == nil)
		return err
	})
}

// lines emits the records of a stream after the first skip of them.
func (r *run) lines(in io.Reader, skip int64) source {
	return func(ctx context.Context, emit func(item) error) error {
		lines := record.NewLines(in)
		for seq := int64(1); ; seq++ {
			line, err := lines.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if seq <= skip {
				r.count(func(s *Summary) { s.Resumed++ })
				continue
			}
			j, err := record.Parse(line)
			it := item{key: r.Prefix + j.Key, seq: seq, size: int64(len(line)), name: fmt.Sprintf("line %d", lines.Number())}
			it.load = func() (client.PutItem, error) {
				if err != nil {
					return client.PutItem{}, err
				}
				put, err := j.Put()
				put.Key = it.key
				return put, err
			}
			if err := emit(it); err != nil {
				return err
			}
		}
	}
}

// put writes one item unless the journal has it.
func (r *run) put(ctx context.Context, it item) error {
	if r.journal.has(it.key, it.etag) {
		r.count(func(s *Summary) { s.Resumed++ })
		r.Progress.Add(1, it.size)
		return nil
	}
	put, err := it.load()
	if err != nil {
		return err
	}
	if !put.ExpiresAt.IsZero() && !put.ExpiresAt.After(time.Now()) {
		r.count(func(s *Summary) { s.Expired++ })
		return nil
	}
	if r.IfAbsent {
		put.Condition.MustNotExist = true
	}
	err = r.retry(ctx, func(ctx context.Context) error {
		_, err := r.Client.Put(ctx, put.Key, put.Value, PutOptions(put)...)
		return err
	})
	if r.IfAbsent && errors.Is(err, client.ErrConditionFailed) {
		r.count(func(s *Summary) { s.Existing++ })
		return nil
	}
	if expired(err) {
		r.count(func(s *Summary) { s.Expired++ })
		return nil
	}
	if err != nil {
		return err
	}
	if it.etag != "" {
		r.journal.finished(it.key, it.etag)
	}
	n := int64(len(put.Value))
	r.count(func(s *Summary) { s.Items++; s.Bytes += n })
	r.Progress.Add(1, n)
	return nil
}

// expired reports whether a write was refused because its time is over on the
// cluster's clock.
func expired(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == client.CodeInvalidArgument && e.Details["group_time_ms"] != ""
}

// compare reads a record back and compares it with its source. One that may
// have expired by now, or was there before with IfAbsent, is not compared.
func (r *run) compare(ctx context.Context, it item) error {
	want, err := it.load()
	if err != nil {
		return err
	}
	if !want.ExpiresAt.IsZero() || want.TTL != 0 || r.IfAbsent {
		return nil
	}
	var got client.Record
	err = r.retry(ctx, func(ctx context.Context) (err error) {
		got, err = r.Client.Get(ctx, want.Key)
		return err
	})
	if errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("%w: key %q is not there", ErrMismatch, want.Key)
	}
	if err != nil {
		return err
	}
	if sum := record.Checksum(got.Value); sum != *want.Checksum || len(got.Value) != len(want.Value) {
		return fmt.Errorf("%w: key %q has %d bytes with checksum %08x, the source has %d with %08x",
			ErrMismatch, want.Key, len(got.Value), sum, len(want.Value), *want.Checksum)
	}
	r.count(func(s *Summary) { s.Verified++ })
	return nil
}

// PutOptions returns what Client.Put needs beside key and value.
func PutOptions(p client.PutItem) []client.PutOption {
	opts := []client.PutOption{
		client.WithContentType(p.ContentType), client.WithEncoding(p.Encoding), client.WithTags(p.Tags),
		client.WithMetadata(p.Metadata), client.WithTTL(p.TTL), client.WithExpiry(p.ExpiresAt), client.WithLease(p.Lease), client.If(p.Condition),
	}
	if p.Checksum != nil {
		opts = append(opts, client.WithChecksum(*p.Checksum))
	}
	return opts
}

// openJournal opens the journal when there is one.
func (r *run) openJournal(h header) (err error) {
	if r.Journal == "" {
		return nil
	}
	r.journal, err = openJournal(r.Journal, h, r.Resume)
	return err
}
