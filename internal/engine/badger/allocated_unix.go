//go:build unix

package badger

import (
	"io/fs"
	"syscall"
)

// allocated returns the bytes of a file on disk: Badger's logs are sparse.
func allocated(info fs.FileInfo) int64 {
	const blockBytes = 512
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * blockBytes
	}
	return info.Size()
}
