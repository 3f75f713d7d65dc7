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
	return &direct{f: f, raw: raw}
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
