// Package osfs is the operating system's file system behind env.FS.
package osfs

import (
	"errors"
	"os"
	"path/filepath"
	"sort"

	"kvstore/internal/env"
)

// FS is a directory tree of the operating system. It has no state of its own
// and is safe for concurrent use.
type FS struct {
	root string
}

var _ env.FS = (*FS)(nil)

// New returns the file system below root. With an empty root, names are paths
// of the operating system as they are, absolute ones included.
func New(root string) *FS { return &FS{root: root} }

func (f *FS) path(name string) string {
	name = filepath.FromSlash(name)
	if f.root == "" {
		return name
	}
	return filepath.Join(f.root, name)
}

// Create makes a file, or empties it when it exists, and opens it for reading
// and writing.
func (f *FS) Create(name string) (env.File, error) {
	return f.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Open opens a file that exists for reading and writing.
func (f *FS) Open(name string) (env.File, error) {
	return f.open(name, os.O_RDWR)
}

func (f *FS) open(name string, flags int) (env.File, error) {
	opened, err := os.OpenFile(f.path(name), flags, 0o600)
	if err != nil {
		return nil, mark(err)
	}
	return &file{f: opened}, nil
}

// Remove deletes a file or an empty directory.
func (f *FS) Remove(name string) error { return mark(os.Remove(f.path(name))) }

// Rename moves a file, replacing what is there.
func (f *FS) Rename(from, to string) error {
	return mark(os.Rename(f.path(from), f.path(to)))
}

// MkdirAll makes a directory and its parents, readable by the owner only.
func (f *FS) MkdirAll(name string) error {
	return mark(os.MkdirAll(f.path(name), 0o700))
}

// List returns the base names in a directory, sorted.
func (f *FS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(f.path(dir))
	if err != nil {
		return nil, mark(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	sort.Strings(names)
	return names, nil
}

// SyncDir makes creations, removals and renames in dir durable. Where
// directories cannot be synced (Windows) the file system's own journal does.
func (f *FS) SyncDir(dir string) error { return mark(syncDir(f.path(dir))) }

// Free returns the bytes an unprivileged user may still write under dir.
func (f *FS) Free(dir string) (uint64, error) {
	free, err := free(f.path(dir))
	return free, mark(err)
}

// full is an error of the operating system that also is env.ErrNoSpace.
type full struct{ error }

func (e full) Unwrap() error        { return e.error }
func (e full) Is(target error) bool { return target == env.ErrNoSpace }

// mark makes a full disk recognizable on every system.
func mark(err error) error {
	if err == nil {
		return nil
	}
	for _, code := range noSpaceCodes {
		if errors.Is(err, code) {
			return full{err}
		}
	}
	return err
}
