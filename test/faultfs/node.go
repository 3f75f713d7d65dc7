//go:build linux

package main

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or directory of the mirrored tree.
type node struct {
	*fs.LoopbackNode
	faults *faults
}

var (
	_ fs.NodeWrapChilder     = (*node)(nil)
	_ fs.NodeOpener          = (*node)(nil)
	_ fs.NodeOpendirHandler  = (*node)(nil)
	_ fs.NodeCreater         = (*node)(nil)
	_ fs.NodeMkdirer         = (*node)(nil)
	_ fs.NodeStatfser        = (*node)(nil)
	_ fs.FileReader          = (*handle)(nil)
	_ fs.FileWriter          = (*handle)(nil)
	_ fs.FileFsyncer         = (*handle)(nil)
	_ fs.FileAllocater       = (*handle)(nil)
	_ fs.FilePassthroughFder = (*handle)(nil)
	_ fs.FileFsyncdirer      = (*dirHandle)(nil)
)

func newRoot(dir string, f *faults) (fs.InodeEmbedder, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return nil, err
	}
	data := &fs.LoopbackRoot{Path: dir, Dev: st.Dev}
	root := &node{LoopbackNode: &fs.LoopbackNode{RootData: data}, faults: f}
	data.RootNode = root
	return root, nil
}

func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), faults: n.faults}
}

// keep the pages of a file that is opened again: nobody else changes it.
const keep = fuse.FOPEN_KEEP_CACHE

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fh, got, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &handle{LoopbackFile: fh.(*fs.LoopbackFile), faults: n.faults}, got | keep, 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if n.faults.isFull() {
		return nil, nil, 0, syscall.ENOSPC
	}
	inode, fh, got, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &handle{LoopbackFile: fh.(*fs.LoopbackFile), faults: n.faults}, got | keep, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if n.faults.isFull() {
		return nil, syscall.ENOSPC
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fh, got, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{openDir: fh.(openDir), faults: n.faults}, got, 0
}

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	errno := n.LoopbackNode.Statfs(ctx, out)
	if n.faults.isFull() {
		out.Bfree, out.Bavail = 0, 0
	}
	return errno
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	faults *faults
}

// PassthroughFd keeps the kernel from going past the faults.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

func (h *handle) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := h.faults.before(opRead); errno != 0 {
		return nil, errno
	}
	return h.LoopbackFile.Read(ctx, buf, off)
}

func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.faults.before(opWrite); errno != 0 {
		return 0, errno
	}
	if h.faults.isFull() && h.grows(ctx, off+int64(len(data))) {
		return 0, syscall.ENOSPC
	}
	return h.LoopbackFile.Write(ctx, data, off)
}

func (h *handle) grows(ctx context.Context, end int64) bool {
	var attr fuse.AttrOut
	errno := h.Getattr(ctx, &attr)
	return errno != 0 || end > int64(attr.Size)
}

func (h *handle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := h.faults.before(opSync); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Fsync(ctx, flags)
}

func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno := h.faults.before(opWrite); errno != 0 {
		return errno
	}
	if h.faults.isFull() {
		return syscall.ENOSPC
	}
	return h.LoopbackFile.Allocate(ctx, off, size, mode)
}

// openDir is what an open directory of the mirrored tree can do.
type openDir interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
	fs.FileFsyncdirer
}

// dirHandle is an open directory.
type dirHandle struct {
	openDir
	faults *faults
}

func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	if errno := d.faults.before(opSync); errno != 0 {
		return errno
	}
	return d.openDir.Fsyncdir(ctx, flags)
}
