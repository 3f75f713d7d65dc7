package transfer

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"kvstore/client"
)

// partialDir holds files that are being written, inside the target.
const partialDir = ".kvctl-partial"

// files writes below one directory. os.Root keeps every path inside, also
// past symbolic links that are there already.
type files struct {
	name string
	root *os.Root
	seq  atomic.Int64
}

// openFiles makes the directory and empties what an earlier run left.
func openFiles(dir string) (*files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	err = root.RemoveAll(partialDir)
	if err == nil {
		err = root.Mkdir(partialDir, 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &files{name: dir, root: root}, nil
}

func (f *files) close() {
	_ = f.root.RemoveAll(partialDir)
	_ = f.root.Close()
}

// reserved refuses the one name below the target that is ours.
func reserved(rel string) error {
	if rel == partialDir || strings.HasPrefix(rel, partialDir+"/") {
		return fmt.Errorf("the name %s is reserved", partialDir)
	}
	return nil
}

// size returns a regular file's size, -1 when there is none.
func (f *files) size(rel string) int64 {
	info, err := f.root.Lstat(rel)
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	return info.Size()
}

func (f *files) mkdir(rel string) error {
	if err := reserved(rel); err != nil {
		return err
	}
	return f.root.MkdirAll(rel, impliedMode)
}

// write puts a complete file with its mode and time at rel.
func (f *files) write(rel string, rec client.Record) error {
	if err := f.mkdir(path.Dir(rel)); err != nil {
		return err
	}
	if err := reserved(rel); err != nil {
		return err
	}
	mode, err := modeOf(rec.Metadata, 0o644)
	if err != nil {
		return err
	}
	tmp := path.Join(partialDir, strconv.FormatInt(f.seq.Add(1), 10))
	if err := f.root.WriteFile(tmp, rec.Value, 0o600); err != nil {
		return err
	}
	err = f.root.Chmod(tmp, mode)
	if err == nil {
		err = f.setTime(tmp, rec.Metadata)
	}
	if err == nil {
		err = f.root.Rename(tmp, rel)
	}
	if err != nil {
		_ = f.root.Remove(tmp)
	}
	return err
}

func (f *files) setTime(name string, meta map[string]string) error {
	text, ok := meta[metaTime]
	if !ok {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("metadata %s: %w", metaTime, err)
	}
	return f.root.Chtimes(name, t, t)
}

func modeOf(meta map[string]string, missing fs.FileMode) (fs.FileMode, error) {
	text, ok := meta[metaMode]
	if !ok {
		return missing, nil
	}
	m, err := parseMode(text)
	return fs.FileMode(m), err
}

// checksum reads a file.
func (f *files) checksum(rel string) (sum uint32, n int64, err error) {
	in, err := f.root.Open(rel)
	if errors.Is(err, fs.ErrPermission) {
		return 0, 0, fmt.Errorf("cannot verify: %w", err)
	}
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = in.Close() }()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err = io.Copy(h, in)
	return h.Sum32(), n, err
}

// symlink makes a link in place of whatever link is there.
func (f *files) symlink(rel, target string) error {
	if err := f.mkdir(path.Dir(rel)); err != nil {
		return err
	}
	if err := reserved(rel); err != nil {
		return err
	}
	if info, err := f.root.Lstat(rel); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if err := f.root.Remove(rel); err != nil {
			return err
		}
	}
	return f.root.Symlink(target, rel)
}

func (f *files) chmod(rel string, mode fs.FileMode) error { return f.root.Chmod(rel, mode) }
