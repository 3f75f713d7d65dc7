package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// blockBytes is the unit of st_blocks and of a device's sectors.
const blockBytes = 512

// Writes are bytes written so far.
type Writes struct {
	// Device is what the disk was given, by everybody on this machine; 0 when
	// the file system has no disk of its own.
	Device int64 `json:"device"`
	// Nodes is write_bytes of the nodes in the kernel: pages that they made
	// dirty. Where the page cache has large folios, all pages of one count.
	Nodes int64 `json:"nodes"`
}

// Sub is what was written since before.
func (w Writes) Sub(before Writes) Writes {
	return Writes{w.Device - before.Device, w.Nodes - before.Nodes}
}

// Writes reads both. The disk gets dirty pages of files that nobody syncs only
// later.
func (c *Cluster) Writes() (w Writes, err error) {
	if w.Nodes, err = c.Written(); err != nil {
		return w, err
	}
	w.Device, err = deviceWritten(c.Nodes[0].DataDir)
	return w, err
}

func deviceWritten(dir string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("device of %s: %w", dir, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return sectorsWritten(string(text))
}

// sectorsWritten reads the seventh field of a block device's stat file.
func sectorsWritten(stat string) (int64, error) {
	fields := strings.Fields(stat)
	if len(fields) < 7 {
		return 0, fmt.Errorf("stat of a block device: %d fields", len(fields))
	}
	n, err := strconv.ParseInt(fields[6], 10, 64)
	return n * blockBytes, err
}

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
