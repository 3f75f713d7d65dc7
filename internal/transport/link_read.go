package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// bodyStep is the least by which the buffer of a frame grows, and what a
// reader keeps of it.
const bodyStep = 1 << 20

// linkReader reads the frames of a link. What it holds grows with the bytes
// that came, not with the length they claim.
type linkReader struct {
	r *bufio.Reader
	// waiting is told before and after the wait for the rest of a frame.
	waiting func(bool)
	large   []byte // for a frame that does not fit in r's buffer
	// before is the last frame that named others than the one before it, nil for
	// none.
	before *api.Frame
}

// next returns the next frame. io.EOF means the link ended between two frames,
// io.ErrUnexpectedEOF within one; a frame that is not one is InvalidArgument.
func (l *linkReader) next() (*api.Frame, error) {
	n, err := l.length()
	if err != nil {
		return nil, err
	}
	if l.r.Buffered() < n {
		l.waiting(true)
		defer l.waiting(false)
	}
	if n > l.r.Size() {
		body, err := l.grow(n)
		if err != nil {
			return nil, err
		}
		return l.decode(body)
	}
	body, err := l.r.Peek(n)
	if err != nil {
		return nil, unexpected(err)
	}
	f, err := l.decode(body) // copies what it keeps
	_, _ = l.r.Discard(n)    // all of it is buffered
	return f, err
}

// length reads the length of the next frame in bytes.
func (l *linkReader) length() (int, error) {
	prefix, err := l.r.Peek(prefixBytes)
	if err != nil {
		if len(prefix) > 0 {
			err = unexpected(err)
		}
		return 0, err
	}
	n := binary.BigEndian.Uint32(prefix)
	if n == 0 || n > MaxMessageBytes {
		return 0, fault.New(fault.InvalidArgument, "frame has an impossible length", "limit", MaxMessageBytes, "actual", n)
	}
	_, _ = l.r.Discard(prefixBytes) // all of it is buffered
	return int(n), nil
}

// grow reads n bytes into a buffer that at most doubles with each read.
func (l *linkReader) grow(n int) ([]byte, error) {
	b := l.large[:0]
	for len(b) < n {
		step := min(n-len(b), max(len(b), bodyStep))
		b = slices.Grow(b, step)
		got, err := io.ReadFull(l.r, b[len(b):len(b)+step])
		b = b[:len(b)+got]
		if err != nil {
			return nil, unexpected(err)
		}
	}
	if l.large = b; cap(b) > bodyStep {
		l.large = nil
	}
	return b, nil
}

func (l *linkReader) decode(body []byte) (*api.Frame, error) {
	f, err := decodeFrame(body, l.before)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidArgument, err, "frame cannot be decoded", "bytes", len(body))
	}
	if b := l.before; b.GetFromNode() != f.GetFromNode() || b.GetToNode() != f.GetToNode() || b.GetClusterId() != f.GetClusterId() {
		l.before = &api.Frame{ClusterId: f.ClusterId, FromNode: f.FromNode, ToNode: f.ToNode}
	}
	return f, nil
}

// unexpected is for an end within a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
