//go:build linux

// Command faultfs shows a directory at another place, and on command makes it a
// disk that hangs, fails or is full, for tests of the unmodified product.
//
//	faultfs SOCKET DIRECTORY MOUNTPOINT
//
// It prints "mounted" when it is, and answers commands, one line each, on the
// Unix socket SOCKET (faults lists them) until SIGTERM or SIGINT, which end all
// faults and unmount. It needs root and /dev/fuse.
//
// The kernel holds a file's lock while it is synced through FUSE, so that writes
// to a file wait with a sync of it that hangs. Disks differ in that; some do so,
// too.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: faultfs SOCKET DIRECTORY MOUNTPOINT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "faultfs:", err)
		os.Exit(1)
	}
}

func run(socket, dir, mountpoint string) error {
	f := newFaults()
	root, err := newRoot(dir, f)
	if err != nil {
		return err
	}
	control, err := listen(socket, f)
	if err != nil {
		return err
	}
	valid := time.Second
	server, err := fs.Mount(mountpoint, root, &fs.Options{
		EntryTimeout: &valid, AttrTimeout: &valid,
		MountOptions: fuse.MountOptions{
			FsName: dir, Name: "faultfs", DirectMount: true, MaxWrite: 1 << 20, DisableXAttrs: true,
			// What hangs in the background must not keep the rest from being served.
			MaxBackground: 256,
		},
	})
	if err != nil {
		return fmt.Errorf("mounting at %s: %w", mountpoint, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("mounted")
	<-stop
	f.clear()
	_ = control.Close()
	return unmount(server, mountpoint)
}

// unmount detaches where somebody still has files open.
func unmount(server *fuse.Server, mountpoint string) error {
	if err := server.Unmount(); err == nil {
		return nil
	}
	return syscall.Unmount(mountpoint, syscall.MNT_DETACH)
}
