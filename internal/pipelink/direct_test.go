package pipelink

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// directPair returns both ends of a TCP connection, the first of them direct.
func directPair(t *testing.T) (direct, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return Direct(a), b
}

// More is written than the socket takes, and each side waits for the other.
func TestDirectCarriesAll(t *testing.T) {
	a, b := directPair(t)
	sent := bytes.Repeat([]byte("0123456789abcde"), 1<<20)
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(b, io.LimitReader(b, int64(len(sent))))
		echoed <- err
	}()
	written := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			n, err := a.Write(rest[:min(len(rest), 60_000)])
			if err != nil {
				written <- err
				return
			}
			rest = rest[n:]
		}
		written <- nil
	}()
	got := make([]byte, len(sent))
	for n := 0; n < len(got); {
		more, err := a.Read(got[n:min(n+10_000, len(got))])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	if err := errors.Join(<-written, <-echoed); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("another echo: %v", err)
	}
}

func TestDirectTellsTheEnd(t *testing.T) {
	a, b := directPair(t)
	_ = b.Close()
	if n, err := a.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v, want io.EOF", n, err)
	}
}

func TestDirectFailsAsConnections(t *testing.T) {
	a, b := directPair(t)
	if err := b.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = b.Close() // a reset
	var op *net.OpError
	if _, err := a.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("a reset connection reads %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a reset connection writes %v", err)
	}
	_ = a.Close()
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed connection writes %v", err)
	}
}

func TestDirectKeepsDeadlines(t *testing.T) {
	a, _ := directPair(t)
	if err := a.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read ended with %v", err)
	}
	var err error
	for err == nil { // until the socket is full
		_, err = a.Write(make([]byte, 10_000))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v", err)
	}
}

func TestDirectReadEndsWithTheConnection(t *testing.T) {
	a, _ := directPair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 10))
		ended <- err
	}()
	_ = a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the read ended with %v", err)
	}
}

func TestDirectReadEndsWithALaterDeadline(t *testing.T) {
	a, _ := directPair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 10))
		ended <- err
	}()
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read ended with %v", err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Errorf("and with it writes: %v", err)
	}
}

func TestDirectWriteEndsWithTheConnection(t *testing.T) {
	a, _ := directPair(t)
	wrote := make(chan struct{}, 1) // nothing comes for a while where the socket is full
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := a.Write(make([]byte, 10_000)); err != nil {
				ended <- err
				return
			}
			select {
			case wrote <- struct{}{}:
			default:
			}
		}
	}()
	for full := false; !full; {
		select {
		case <-wrote:
		case <-time.After(50 * time.Millisecond):
			full = true
		}
	}
	_ = a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the write ended with %v", err)
	}
}

// A side that has closed its half still hears the other, after all that it said.
func TestDirectOfHalfAConnection(t *testing.T) {
	a, b := directPair(t)
	if _, err := b.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := b.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(a); err != nil || string(got) != "last" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDirectAllocatesNothing(t *testing.T) {
	a, b := directPair(t)
	go func() { _, _ = io.Copy(b, b) }()
	buf := make([]byte, 100)
	n := testing.AllocsPerRun(100, func() {
		if _, err := a.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, buf); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
