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
