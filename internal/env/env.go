// Package env declares the seams between the store and the world: clock, file
// system, randomness and network. Production code takes the real ones, the
// simulation its own.
package env

import (
	"io"
	"time"
)

// Clock tells time. Wall is for stamps and may jump; Mono only grows and is
// for intervals.
type Clock interface {
	// Wall returns Unix milliseconds.
	Wall() int64
	// Mono returns the time since an arbitrary start.
	Mono() time.Duration
}

// Rand draws random numbers.
type Rand interface {
	Uint64() uint64
}

// File is an open file. All methods report *os.PathError-like errors that
// name the file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes durable (fdatasync).
	Sync() error
	// Preallocate extends the file to size bytes of zeroes that are allocated
	// on disk, and makes the new size durable. ENOSPC is reported here.
	Preallocate(size int64) error
	Truncate(size int64) error
	Size() (int64, error)
}

// Uncached asks that writes to a file whose memory, offset and length are
// multiples of 512 go past the operating system's page cache, for files that are
// hardly ever read back. It is a wish: files that cannot do that stay as they are.
// It must be called before the file is shared.
func Uncached(f File) {
	if u, ok := f.(interface{ Uncached() }); ok {
		u.Uncached()
	}
}

// Scattered says that a file is read here and there: the operating system should
// read from the disk what is asked for and nothing around it. It is a wish, too.
func Scattered(f File) {
	if s, ok := f.(interface{ Scattered() }); ok {
		s.Scattered()
	}
}

// WriteSync writes p and makes those bytes durable, and maybe no others, with one
// call where the file has that.
func WriteSync(f File, p []byte, off int64) error {
	if w, ok := f.(interface{ WriteSync([]byte, int64) error }); ok {
		return w.WriteSync(p, off)
	}
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

// FS is a file system rooted anywhere; names are slash-separated paths.
type FS interface {
	Create(name string) (File, error)
	Open(name string) (File, error)
	Remove(name string) error
	Rename(from, to string) error
	MkdirAll(name string) error
	// List returns the base names in a directory, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes creations, removals and renames in dir durable.
	SyncDir(dir string) error
	// Free returns the bytes an unprivileged user may still write under dir.
	Free(dir string) (uint64, error)
}
