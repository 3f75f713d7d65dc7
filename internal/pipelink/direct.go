//go:build linux && !race

package pipelink

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// directBytes bounds what is read or written directly: copying it takes some tens of
// microseconds.
const directBytes = 64 << 10

// direct is a TCP connection on which the scheduler is not told of small reads and
// writes. They do not block, but where all cores are busy the kernel lets others run
// in between. The scheduler takes that for a call that blocks, and wakes a thread to
// go on with; that, and watching for it, is a tenth of what a client of small frames
// costs, and a twentieth of what its gets cost the nodes. Between nodes it saves
// nothing that stands out from the spread of measurements.
//
// The race detector learns from the calls that this avoids what happens before what.
type direct struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write.
type transfer struct {
	step  func(fd uintptr) (done bool) // until it is done, it waits for the socket
	b     []byte
	n     int           // bytes of b done
	errno syscall.Errno // what a call has failed with; 0 for nothing
}

// Direct returns a cheaper conn, or conn where there is none. One goroutine at a time
// may write, and one read. Errors are as those of conn.
func Direct(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	d := &direct{Conn: conn, raw: raw}
	d.in.step, d.out.step = d.in.read, d.out.write
	return d
}

func (d *direct) Read(b []byte) (int, error) {
	if len(b) == 0 || len(b) > directBytes {
		return d.Conn.Read(b)
	}
	n, err := d.in.run(b, d.raw.Read)
	switch {
	case err != nil:
		return n, err
	case d.in.errno != 0:
		return n, d.failed("read", d.in.errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (d *direct) Write(b []byte) (int, error) {
	if len(b) == 0 || len(b) > directBytes {
		return d.Conn.Write(b)
	}
	n, err := d.out.run(b, d.raw.Write)
	if err == nil && d.out.errno != 0 {
		err = d.failed("write", d.out.errno)
	}
	return n, err
}

func (d *direct) failed(call string, errno syscall.Errno) error {
	return &net.OpError{Op: call, Net: "tcp", Source: d.LocalAddr(), Addr: d.RemoteAddr(), Err: os.NewSyscallError(call, errno)}
}

func (t *transfer) run(b []byte, wait func(func(uintptr) bool) error) (int, error) {
	t.b, t.n, t.errno = b, 0, 0
	err := wait(t.step)
	t.b = nil
	return t.n, err
}

// read reads what there is; nothing at the end.
func (t *transfer) read(fd uintptr) (done bool) {
	t.n, t.errno = call(syscall.SYS_READ, fd, t.b)
	return !t.waits()
}

// write writes all.
func (t *transfer) write(fd uintptr) (done bool) {
	for t.n < len(t.b) {
		var n int
		if n, t.errno = call(syscall.SYS_WRITE, fd, t.b[t.n:]); t.errno != 0 {
			return !t.waits()
		}
		t.n += n
	}
	return true
}

// waits reports whether the socket was not ready, which is no failure.
func (t *transfer) waits() bool {
	if t.errno != syscall.EAGAIN {
		return false
	}
	t.errno = 0
	return true
}

// call repeats what a signal has interrupted. n is 0 where it failed.
func call(trap, fd uintptr, b []byte) (n int, errno syscall.Errno) {
	for {
		r, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))) //nolint:gosec // b is not empty and outlives the call
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
