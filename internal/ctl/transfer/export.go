package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// exportPage is the number of keys fetched at once.
const exportPage = 1000

// export is a run that restores a tree.
type export struct {
	*run
	files *files

	mu    sync.Mutex // guards links and dirs
	links []link     // made last, so that nothing is written through them
	dirs  []dirMode  // set last, so that read-only ones can be filled
}

type link struct{ item, rel, target string }

type dirMode struct {
	item, rel string
	mode      os.FileMode
}

// ExportDir restores the records below o.Prefix as a directory tree. Values
// are read at the snapshot of the listing, or newer when that has left the
// history window (Summary.Newer).
func ExportDir(ctx context.Context, dir string, o Options) (Summary, error) {
	r := newRun(o)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Summary{}, err
	}
	f, err := openFiles(dir)
	if err != nil {
		return Summary{}, err
	}
	defer f.close()
	if err := r.openJournal(header{Kind: "export dir", Source: o.Prefix, Target: abs, Namespace: o.Namespace}); err != nil {
		return Summary{}, err
	}
	e := &export{run: r, files: f}
	return r.finish(e.all(ctx))
}

func (e *export) all(ctx context.Context) error {
	total, err := e.total(ctx)
	if err != nil {
		return err
	}
	e.Progress.Phase("export", total, 0)
	if err := e.each(ctx, e.list, e.restore); err != nil {
		return err
	}
	return e.last()
}

func (r *run) total(ctx context.Context) (n int64, err error) {
	err = r.retry(ctx, func(ctx context.Context) error {
		count, err := r.Client.Count(ctx, client.WithPrefix(r.Prefix))
		n = int64(count)
		return err
	})
	return n, unfatal(err)
}

// unfatal removes the mark of retry where no item is concerned.
func unfatal(err error) error {
	var fatal *fatalError
	if errors.As(err, &fatal) {
		return fatal.cause
	}
	return err
}

// list emits the keys below the prefix, on one snapshot.
func (r *run) list(ctx context.Context, emit func(item) error) error {
	return r.pages(ctx, "", []client.ListOption{client.KeysOnly(), client.WithLimit(exportPage)}, func(p client.Page) error {
		for _, rec := range p.Records {
			rec.Read.Revision = p.Revision
			if err := emit(item{key: rec.Key, name: strconv.Quote(rec.Key), size: int64(rec.Size), rec: rec}); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages walks all pages of the keys below the prefix that come after a key
// ("" for all). A snapshot that leaves the history window is replaced by a
// newer one, from the last key on.
func (r *run) pages(ctx context.Context, after string, opts []client.ListOption, each func(client.Page) error) error {
	token, start := "", after
	for {
		page, err := r.page(ctx, start, token, opts)
		if token != "" && errors.Is(err, client.ErrOutOfRange) {
			token, start = "", after
			continue
		}
		if err != nil {
			return unfatal(err)
		}
		if len(page.Records) > 0 && page.Records[0].Key == after {
			page.Records = page.Records[1:] // a range begins with its start
		}
		if n := len(page.Records); n > 0 {
			after = page.Records[n-1].Key
		}
		if err := each(page); err != nil {
			return err
		}
		if token = page.Token; token == "" {
			return nil
		}
	}
}

// page fetches one page; a token goes with the start of its first page.
func (r *run) page(ctx context.Context, start, token string, opts []client.ListOption) (page client.Page, err error) {
	opts = append(opts[:len(opts):len(opts)], client.WithPrefix(r.Prefix), client.WithRange(start, ""), client.After(token))
	err = r.retry(ctx, func(ctx context.Context) (err error) {
		page, err = r.Client.List(ctx, opts...)
		return err
	})
	return page, err
}

// restore writes the file of one record.
func (e *export) restore(ctx context.Context, it item) error {
	rel, err := recordPath(it.key, e.Prefix, it.rec.Metadata)
	if err != nil {
		return err
	}
	etag := strconv.FormatUint(it.rec.Revision, 10)
	if it.rec.Metadata[metaType] == "" && e.journal.has(it.key, etag) && e.files.size(rel) == it.size {
		e.count(func(s *Summary) { s.Resumed++ })
		e.Progress.Add(1, it.size)
		return nil
	}
	rec, err := e.fetch(ctx, it)
	if errors.Is(err, client.ErrNotFound) {
		e.count(func(s *Summary) { s.Expired++ })
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.place(it, rel, rec); err != nil {
		return err
	}
	if rec.Revision == it.rec.Revision {
		e.journal.finished(it.key, etag)
	}
	n := int64(len(rec.Value))
	e.count(func(s *Summary) { s.Items++; s.Bytes += n })
	e.Progress.Add(1, n)
	return nil
}

// fetch reads a record at the snapshot, else its newest version.
func (e *export) fetch(ctx context.Context, it item) (rec client.Record, err error) {
	get := func(opts ...client.GetOption) error {
		return e.retry(ctx, func(ctx context.Context) (err error) {
			rec, err = e.Client.Get(ctx, it.key, opts...)
			return err
		})
	}
	err = get(client.AtRevision(it.rec.Read.Revision))
	if errors.Is(err, client.ErrOutOfRange) {
		err = get()
	}
	if err != nil {
		return rec, err
	}
	if sum := record.Checksum(rec.Value); sum != rec.Checksum {
		return rec, fmt.Errorf("%w: value has checksum %08x, its record says %08x", ErrMismatch, sum, rec.Checksum)
	}
	if rec.Revision != it.rec.Revision {
		e.count(func(s *Summary) { s.Newer++ })
	}
	return rec, nil
}

// place writes a file now and keeps links and directories for last.
func (e *export) place(it item, rel string, rec client.Record) error {
	switch kind := rec.Metadata[metaType]; kind {
	case typeLink:
		target := string(rec.Value)
		if !e.UnsafeLinks && !linkAllowed(rel, target) {
			return fmt.Errorf("symbolic link to %q leaves the target directory; --unsafe-links restores it", target)
		}
		e.mu.Lock()
		e.links = append(e.links, link{it.name, rel, target})
		e.mu.Unlock()
		return nil
	case typeDir:
		mode, err := modeOf(rec.Metadata, impliedMode)
		if err != nil {
			return err
		}
		e.mu.Lock()
		e.dirs = append(e.dirs, dirMode{it.name, rel, mode})
		e.mu.Unlock()
		return e.files.mkdir(rel)
	case "":
		if err := e.files.write(rel, rec); err != nil || !e.Verify {
			return err
		}
		return e.check(rel, rec)
	default:
		return fmt.Errorf("metadata %s: unknown type %q", metaType, kind)
	}
}

// check reads a file back and compares it with its record.
func (e *export) check(rel string, rec client.Record) error {
	sum, n, err := e.files.checksum(rel)
	if err != nil {
		return err
	}
	if sum != rec.Checksum || n != int64(len(rec.Value)) {
		return fmt.Errorf("%w: file %s has %d bytes with checksum %08x, the record %d with %08x", ErrMismatch, path.Join(e.files.name, rel), n, sum, len(rec.Value), rec.Checksum)
	}
	e.count(func(s *Summary) { s.Verified++ })
	return nil
}

// last makes the links and sets the modes of directories.
func (e *export) last() error {
	for _, l := range e.links {
		if err := e.files.symlink(l.rel, l.target); err != nil {
			if err := e.fail(l.item, err); err != nil {
				return err
			}
		}
	}
	for i := len(e.dirs) - 1; i >= 0; i-- {
		if err := e.files.chmod(e.dirs[i].rel, e.dirs[i].mode); err != nil {
			if err := e.fail(e.dirs[i].item, err); err != nil {
				return err
			}
		}
	}
	return nil
}
