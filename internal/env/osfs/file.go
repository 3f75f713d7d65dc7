package osfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kvstore/internal/env/system"
)

// zeroStep is how much Preallocate writes before it makes that durable: small
// enough that a log's own fdatasync beside it is not held up for long.
const zeroStep = 2 << 20

// zeroes begin at a page, as all large allocations do, so that they can be written
// past the page cache.
var zeroes = make([]byte, 1<<20)

type file struct {
	f      *os.File
	direct *direct // nil: all writes go through the page cache
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	n, ok, err := f.direct.writeAt(p, off)
	if !ok {
		n, err = f.f.WriteAt(p, off)
	}
	return n, mark(err)
}
func (f *file) Close() error              { return errors.Join(f.direct.close(), f.f.Close()) }
func (f *file) Truncate(size int64) error { return mark(f.f.Truncate(size)) }

// Sync makes the file's bytes durable, and its size where that is needed to
// read them back.
func (f *file) Sync() error {
	if err := syncData(f.f); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.f.Name(), Err: mark(err)}
	}
	return nil
}

func (f *file) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Preallocate extends the file to size bytes. It writes real zeroes: blocks
// that are only reserved (fallocate) are converted at the first write to each,
// and that makes every later fdatasync commit the file system's journal.
func (f *file) Preallocate(size int64) error {
	old, err := f.Size()
	if err != nil {
		return err
	}
	if size <= old {
		return nil
	}
	if err := reserve(f.f, old, size); err != nil {
		return &os.PathError{Op: "preallocate", Path: f.f.Name(), Err: mark(err)}
	}
	if err := f.writeZeroes(old, size); err != nil {
		return fmt.Errorf("preallocate: %w", err)
	}
	return mark(f.f.Sync())
}

const longestPause = 10 * time.Millisecond

func (f *file) writeZeroes(from, to int64) error {
	unsynced := 0
	for from < to {
		n := min(int64(len(zeroes)), to-from)
		if _, err := f.WriteAt(zeroes[:n], from); err != nil {
			return err
		}
		from += n
		if unsynced += int(n); unsynced >= zeroStep {
			start := time.Now()
			if err := f.Sync(); err != nil {
				return err
			}
			unsynced = 0
			// Whoever shares the disk gets half of its time.
			_ = system.Pause(context.Background(), min(time.Since(start), longestPause)) // the context does not end
		}
	}
	return nil
}
