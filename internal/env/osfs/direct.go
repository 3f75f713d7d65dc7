package osfs

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// directAlign is what memory, offset and length of a direct write must be
// multiples of: a sector of the log. Devices that want more are written through
// the page cache.
const directAlign = 512

// direct is a second descriptor of a file, whose writes go past the page cache.
//
// A page that a write brings into the cache costs more than its copy: it has to be
// found, and where the machine is virtual the host has to back it, which takes ten
// times as long as copying 4 KB. What is written once and hardly ever read back, as
// a log is, fills memory with such pages. Writes that are not aligned go through
// the cache, as do all reads; the kernel keeps both views of a file the same.
type direct struct {
	f       *os.File
	raw     syscall.RawConn
	refused atomic.Bool // the device or the file system wants what it is not given
	// durable: writes can be made durable in the call that makes them.
	durable atomic.Bool
}

// aligned reports whether a write may be direct.
func aligned(p []byte, off int64) bool {
	return len(p) > 0 && len(p)%directAlign == 0 && off%directAlign == 0 &&
		uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directAlign == 0 //nolint:gosec // only looked at as a number
}

// writeAt writes directly, and reports whether it could.
func (d *direct) writeAt(p []byte, off int64) (n int, ok bool, err error) {
	if d == nil || d.refused.Load() || !aligned(p, off) {
		return 0, false, nil
	}
	n, err = d.f.WriteAt(p, off)
	if errors.Is(err, syscall.EINVAL) {
		d.refused.Store(true)
		return 0, false, nil
	}
	return n, true, err
}

// WriteSync writes p and makes it durable.
func (f *file) WriteSync(p []byte, off int64) error {
	if done, err := f.direct.writeSync(p, off); done {
		return mark(err)
	}
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

// writeSync writes directly and durably with one system call, which lets a device
// that can do so take both at once, and reports whether it could.
func (d *direct) writeSync(p []byte, off int64) (done bool, err error) {
	if d == nil || !d.durable.Load() || d.refused.Load() || !aligned(p, off) {
		return false, nil
	}
	n, err := d.writeDurable(p, off)
	switch {
	case err == nil:
		return n == len(p), nil
	case lost(err):
		return true, &os.PathError{Op: "pwritev2", Path: d.f.Name(), Err: err}
	default: // it is not allowed, or not known
		d.durable.Store(false)
		return false, nil
	}
}

// lost reports whether a write failed for what it is, not for how it was asked for.
func lost(err error) bool {
	if errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EIO) {
		return true
	}
	return slices.ContainsFunc(noSpaceCodes, func(code error) bool { return errors.Is(err, code) })
}

func (d *direct) close() error {
	if d == nil {
		return nil
	}
	return d.f.Close()
}

// Uncached lets aligned writes go past the page cache where the system can do
// that, and does nothing elsewhere. It must be called before the file is shared.
func (f *file) Uncached() { f.direct = openDirect(f.f.Name()) }
