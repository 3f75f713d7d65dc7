package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// blockBytes is the unit of st_blocks.
const blockBytes = 512

// Disk is what the data of every node occupies, in bytes: allocated blocks, so
// that holes of sparse files do not count.
func (c *Cluster) Disk() ([]int64, error) {
	all := make([]int64, len(c.Nodes))
	for i, n := range c.Nodes {
		var err error
		if all[i], err = allocated(n.DataDir); err != nil {
			return nil, fmt.Errorf("%s: node %d: %w", c.Name, i+1, err)
		}
	}
	return all, nil
}

func allocated(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					sum += st.Blocks * blockBytes
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted while we looked
		}
		return err
	})
	return sum, err
}
