package osfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var noSpaceCodes = []error{unix.ENOSPC, unix.EDQUOT}

func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reserve claims the space at once, so that a full disk is met before
// anything is written. File systems without fallocate meet it while the zeroes
// are written.
func reserve(f *os.File, from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		default:
			return err
		}
	}
}

// Scattered turns read-ahead off. A file that is mostly in the page cache looks to
// the kernel as if it were read in order wherever a page is missing, and it reads
// as much from there on as the device allows, often megabytes.
func (f *file) Scattered() { _ = unix.Fadvise(int(f.f.Fd()), 0, 0, unix.FADV_RANDOM) }

// openDirect opens a file that is open already; nil where its file system has no
// direct writes.
func openDirect(path string) *direct {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close() // nothing was written
		return nil
	}
	d := &direct{f: f, raw: raw}
	d.durable.Store(syncsWrites(f))
	return d
}

// syncsWrites reports whether the file system is known to do for RWF_DSYNC all that
// fdatasync does; some take the flag and do less.
func syncsWrites(f *os.File) bool {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return false
	}
	switch uint32(stat.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// writeDurable writes and makes what it wrote durable, and no more than that: a
// device may get it past its cache. The file cannot be closed meanwhile.
func (d *direct) writeDurable(p []byte, off int64) (n int, err error) {
	closed := d.raw.Control(func(fd uintptr) {
		for {
			n, err = unix.Pwritev2(int(fd), [][]byte{p}, off, unix.RWF_DSYNC)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if closed != nil {
		return 0, os.ErrClosed
	}
	return n, err
}
