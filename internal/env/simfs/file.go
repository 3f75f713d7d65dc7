package simfs

import (
	"io"
	"io/fs"
	"sort"
	"strconv"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// inode is a file without its name. Sectors that are not in the map are zero.
type inode struct {
	size    int64
	durable int64 // size on disk
	sectors map[int64]*sector
}

// sector is one sector as the disk has it and as it was written since.
type sector struct {
	durable []byte // nil: zeroes
	// versions written since durable, oldest first; programs see the last.
	versions [][]byte
	// lost: a sync failed, and the next one will not write the sector.
	lost bool
}

var zeroes [SectorBytes]byte

func newInode() *inode { return &inode{sectors: map[int64]*sector{}} }

func (s *sector) now() []byte {
	if n := len(s.versions); n > 0 {
		return s.versions[n-1]
	}
	return s.onDisk()
}

func (s *sector) onDisk() []byte {
	if s.durable == nil {
		return zeroes[:]
	}
	return s.durable
}

// write replaces part of a sector.
func (s *sector) write(at int, p []byte) {
	next := make([]byte, SectorBytes)
	copy(next, s.now())
	copy(next[at:], p)
	s.versions = append(s.versions, next)
	s.lost = false
}

func (s *sector) sync() {
	if n := len(s.versions); n > 0 && !s.lost {
		s.durable, s.versions = s.versions[n-1], nil
	}
}

// at returns a sector, made when it is not there.
func (i *inode) at(n int64) *sector {
	s := i.sectors[n]
	if s == nil {
		s = &sector{}
		i.sectors[n] = s
	}
	return s
}

// numbers returns the sectors that are not plain zeroes, in order.
func (i *inode) numbers() []int64 {
	all := make([]int64, 0, len(i.sectors))
	for n := range i.sectors {
		all = append(all, n)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	return all
}

func (i *inode) resize(size int64) {
	for n, s := range i.sectors {
		if start := n * SectorBytes; start+SectorBytes > size && start < i.size {
			keep := max(0, size-start)
			s.write(int(keep), zeroes[keep:])
		}
	}
	i.size = size
}

func (i *inode) write(p []byte, off int64) {
	i.size = max(i.size, off+int64(len(p)))
	for len(p) > 0 {
		at := int(off % SectorBytes)
		n := min(len(p), SectorBytes-at)
		i.at(off/SectorBytes).write(at, p[:n])
		p, off = p[n:], off+int64(n)
	}
}

func (i *inode) read(p []byte, off int64) int {
	total := int(max(0, min(int64(len(p)), i.size-off)))
	for done := 0; done < total; {
		at := int((off + int64(done)) % SectorBytes)
		src := zeroes[:]
		if s := i.sectors[(off+int64(done))/SectorBytes]; s != nil {
			src = s.now()
		}
		done += copy(p[done:total], src[at:])
	}
	return total
}

func (i *inode) sync() {
	i.durable = i.size
	for _, s := range i.sectors {
		s.sync()
	}
}

// forget makes a failed sync of the named file: pages are clean in the cache
// and not on the disk; mu must be held.
func (f *FS) forget(name string) {
	if i := f.lookup(name); i != nil {
		for _, s := range i.sectors {
			s.lost = len(s.versions) > 0
		}
	}
}

// file is an open file.
type file struct {
	fs     *FS
	inode  *inode
	name   string
	closed bool
}

func (f *file) do(op Op, run func() error) error {
	op.Name = f.name
	return f.fs.do(op, func() error {
		if f.closed {
			return fs.ErrClosed
		}
		return run()
	})
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(Op{Kind: OpRead, Offset: off, Bytes: int64(len(p))}, func() error {
		n = f.inode.read(p, off)
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(Op{Kind: OpWrite, Offset: off, Bytes: int64(len(p))}, func() error {
		if err := f.fs.extend(off + int64(len(p)) - f.inode.size); err != nil {
			return err
		}
		f.inode.write(p, off)
		n = len(p)
		return nil
	})
	return n, err
}

func (f *file) Sync() error {
	return f.do(Op{Kind: OpSync}, func() error {
		f.inode.sync()
		return nil
	})
}

func (f *file) Preallocate(size int64) error {
	return f.do(Op{Kind: OpPreallocate, Bytes: size}, func() error {
		if size <= f.inode.size {
			return nil
		}
		if err := f.fs.extend(size - f.inode.size); err != nil {
			return err
		}
		f.inode.size = size
		f.inode.sync()
		return nil
	})
}

func (f *file) Truncate(size int64) error {
	return f.do(Op{Kind: OpTruncate, Bytes: size}, func() error {
		if err := f.fs.extend(size - f.inode.size); err != nil {
			return err
		}
		f.inode.resize(size)
		return nil
	})
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	return f.inode.size, nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	f.closed = true
	return nil
}
