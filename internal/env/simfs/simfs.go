// Package simfs is a file system in memory that forgets like a disk.
//
// What was written and not synced may be there after a power cut, in any
// subset of its sectors, in any version, torn; names that were made, moved or
// removed are certain only after SyncDir. Crash and Image make the file system
// that a machine finds after the cut. Hooks inject errors and stalls and
// observe every operation. It is deterministic: nothing depends on time, map
// order or goroutines.
package simfs

import (
	"io/fs"
	"path"
	"sort"
	"strings"
	"sync"

	"kvstore/internal/env"
)

// SectorBytes is what the disk writes whole or, if told so, torn.
const SectorBytes = 512

// Kind of an operation.
type Kind string

// The operations that hooks see.
const (
	OpCreate      Kind = "create"
	OpOpen        Kind = "open"
	OpRemove      Kind = "remove"
	OpRename      Kind = "rename"
	OpMkdir       Kind = "mkdir"
	OpList        Kind = "list"
	OpSyncDir     Kind = "syncdir"
	OpRead        Kind = "read"
	OpWrite       Kind = "write"
	OpSync        Kind = "sync"
	OpPreallocate Kind = "preallocate"
	OpTruncate    Kind = "truncate"
)

// Op is one operation on the file system.
type Op struct {
	Kind   Kind
	Name   string
	To     string // of a rename
	Offset int64
	Bytes  int64
}

// FS is a simulated disk. It is safe for concurrent use; hooks are called
// without its lock and may call it.
type FS struct {
	mu   sync.Mutex
	dirs map[string]*directory
	// capacity in bytes, 0 for no limit; used counts sizes of files that have
	// a name.
	capacity int64
	before   func(Op) error
	after    func(Op, error)
}

var _ env.FS = (*FS)(nil)

// directory has the names as programs see them and as the disk has them.
type directory struct {
	names   map[string]*inode
	durable map[string]*inode
	// pending changes turn durable into names; in order.
	pending []change
}

// change sets and clears names in one step: a rename is one change.
type change struct {
	set   string // "" for none
	inode *inode
	clear string // "" for none
}

// New returns an empty file system.
func New() *FS {
	return &FS{dirs: map[string]*directory{".": newDirectory(), "/": newDirectory()}}
}

func newDirectory() *directory {
	return &directory{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// SetCapacity sets the size of the disk; 0 for no limit.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Before sets a hook that is called ahead of every operation; an error from it
// becomes the operation's, which then has no effect, except that a failed sync
// forgets what it should have made durable, as Linux does. It may stall.
func (f *FS) Before(hook func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = hook
}

// After sets a hook that is called after every operation with its outcome.
func (f *FS) After(hook func(Op, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = hook
}

// do runs an operation between the hooks.
func (f *FS) do(op Op, run func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	var err error
	if before != nil {
		err = before(op)
	}
	f.mu.Lock()
	if err == nil {
		err = run()
	} else if op.Kind == OpSync || op.Kind == OpPreallocate {
		f.forget(op.Name)
	}
	f.mu.Unlock()
	if err != nil {
		err = &fs.PathError{Op: string(op.Kind), Path: op.Name, Err: err}
	}
	if after != nil {
		after(op, err)
	}
	return err
}

// at returns the directory of a name and its base; mu must be held.
func (f *FS) at(name string) (*directory, string, error) {
	name = path.Clean(name)
	d := f.dirs[path.Dir(name)]
	if d == nil {
		return nil, "", fs.ErrNotExist
	}
	return d, path.Base(name), nil
}

func (f *FS) lookup(name string) *inode {
	d, base, err := f.at(name)
	if err != nil {
		return nil
	}
	return d.names[base]
}

// Create makes an empty file, or empties the one that is there.
func (f *FS) Create(name string) (env.File, error) {
	var made *inode
	err := f.do(Op{Kind: OpCreate, Name: name}, func() error {
		d, base, err := f.at(name)
		if err != nil {
			return err
		}
		if made = d.names[base]; made != nil {
			made.resize(0)
			return nil
		}
		made = newInode()
		d.change(change{set: base, inode: made})
		return nil
	})
	return f.handle(made, name, err)
}

// Open opens a file that exists.
func (f *FS) Open(name string) (env.File, error) {
	var opened *inode
	err := f.do(Op{Kind: OpOpen, Name: name}, func() error {
		if opened = f.lookup(name); opened == nil {
			return fs.ErrNotExist
		}
		return nil
	})
	return f.handle(opened, name, err)
}

func (f *FS) handle(i *inode, name string, err error) (env.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{fs: f, inode: i, name: name}, nil
}

// Remove deletes a file.
func (f *FS) Remove(name string) error {
	return f.do(Op{Kind: OpRemove, Name: name}, func() error {
		d, base, err := f.at(name)
		if err != nil {
			return err
		}
		if d.names[base] == nil {
			return fs.ErrNotExist
		}
		d.change(change{clear: base})
		return nil
	})
}

// Rename moves a file within its directory, replacing what is there.
func (f *FS) Rename(from, to string) error {
	return f.do(Op{Kind: OpRename, Name: from, To: to}, func() error {
		d, base, err := f.at(from)
		if err != nil {
			return err
		}
		target, toBase, err := f.at(to)
		if err != nil {
			return err
		}
		i := d.names[base]
		if i == nil || target != d {
			return fs.ErrNotExist
		}
		d.change(change{set: toBase, inode: i, clear: base})
		return nil
	})
}

// MkdirAll makes a directory and its parents. Directories are durable at once.
func (f *FS) MkdirAll(name string) error {
	return f.do(Op{Kind: OpMkdir, Name: name}, func() error {
		for name = path.Clean(name); f.dirs[name] == nil; name = path.Dir(name) {
			f.dirs[name] = newDirectory()
		}
		return nil
	})
}

// List returns the names in a directory, sorted, subdirectories included.
func (f *FS) List(dir string) ([]string, error) {
	var names []string
	err := f.do(Op{Kind: OpList, Name: dir}, func() error {
		dir = path.Clean(dir)
		d := f.dirs[dir]
		if d == nil {
			return fs.ErrNotExist
		}
		for n := range d.names {
			names = append(names, n)
		}
		for n := range f.dirs {
			if n != dir && path.Dir(n) == dir {
				names = append(names, path.Base(n))
			}
		}
		sort.Strings(names)
		return nil
	})
	return names, err
}

// SyncDir makes the names in dir durable.
func (f *FS) SyncDir(dir string) error {
	return f.do(Op{Kind: OpSyncDir, Name: dir}, func() error {
		d := f.dirs[path.Clean(dir)]
		if d == nil {
			return fs.ErrNotExist
		}
		for _, c := range d.pending {
			c.apply(d.durable)
		}
		d.pending = nil
		return nil
	})
}

// Free returns what is left of the capacity.
func (f *FS) Free(string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.capacity == 0 {
		return 1 << 50, nil
	}
	return uint64(max(0, f.capacity-f.used())), nil
}

// Used returns the bytes of all files.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

// used sums the sizes of all files; mu must be held.
func (f *FS) used() int64 {
	var n int64
	for _, d := range f.dirs {
		for _, i := range d.names {
			n += i.size
		}
	}
	return n
}

// extend checks that the disk has room for more bytes; mu must be held.
func (f *FS) extend(more int64) error {
	if f.capacity > 0 && more > 0 && f.used()+more > f.capacity {
		return env.ErrNoSpace
	}
	return nil
}

// Files returns the names of all files, sorted.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for dir, d := range f.dirs {
		for n := range d.names {
			all = append(all, path.Join(dir, n))
		}
	}
	sort.Strings(all)
	return all
}

func (d *directory) change(c change) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

func (c change) apply(names map[string]*inode) {
	if c.clear != "" {
		delete(names, c.clear)
	}
	if c.set != "" {
		names[c.set] = c.inode
	}
}

// String names an operation for traces: "write dir/file 512+1024".
func (o Op) String() string {
	var b strings.Builder
	b.WriteString(string(o.Kind) + " " + o.Name)
	switch o.Kind {
	case OpRename:
		b.WriteString(" " + o.To)
	case OpRead, OpWrite:
		b.WriteString(" " + itoa(o.Offset) + "+" + itoa(o.Bytes))
	case OpPreallocate, OpTruncate:
		b.WriteString(" " + itoa(o.Bytes))
	default: // the name says all
	}
	return b.String()
}
