//go:build unix && !linux

package osfs

import (
	"os"

	"golang.org/x/sys/unix"
)

var noSpaceCodes = []error{unix.ENOSPC, unix.EDQUOT}

// syncData uses os.File.Sync, which on macOS is F_FULLFSYNC: a plain fsync
// there leaves the bytes in the drive's cache.
func syncData(f *os.File) error { return f.Sync() }

func reserve(*os.File, int64, int64) error { return nil }
