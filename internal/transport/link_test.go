package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/tlsconf"
)

// encoded is a frame as a link carries it.
func encoded(t testing.TB, f *api.Frame) []byte {
	t.Helper()
	body, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// dialRaw connects to a node and sends bytes.
func dialRaw(t testing.TB, n *node, sent []byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	return conn
}

// closed reads a connection until its other side closes it.
func closed(t testing.TB, conn net.Conn) string {
	t.Helper()
	text, err := io.ReadAll(conn)
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatalf("the connection stays open after %q", text)
	}
	return string(text)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// Frames that a link may not carry end it, with the reason; nothing of them is
// delivered.
func TestLinkRefusesFrames(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*api.Frame)
		want  string
	}{
		"cluster": {func(f *api.Frame) { f.ClusterId = "cluster-2" }, "another cluster"},
		"to":      {func(f *api.Frame) { f.ToNode = "c" }, "another node"},
		"no from": {func(f *api.Frame) { f.FromNode = "" }, "no valid sender"},
		"format":  {func(f *api.Frame) { f.FormatVersion = format.Version + 1 }, "format version"},
		"sender":  {func(f *api.Frame) { f.FromNode = "c" }, "sender changes"},
	} {
		for good := range 2 {
			if name == "sender" && good == 0 {
				continue // any sender may come first
			}
			b := mustNode(t, "b", nodeOptions{})
			sent := []byte(linkMagic)
			for range good {
				sent = append(sent, encoded(t, goodFrame())...)
			}
			bad := goodFrame()
			c.spoil(bad)
			if got := closed(t, dialRaw(t, b, append(sent, encoded(t, bad)...))); !strings.Contains(got, c.want) {
				t.Errorf("%s: the link ended with %q", name, got)
			}
			b.collect(t, good)
			if n := b.Stats().RefusedFrames; n != 1 {
				t.Errorf("%s: counted %d refused frames", name, n)
			}
		}
	}
}

// Whatever else comes is answered by closing, with a log line.
func TestLinkRefusesGarbage(t *testing.T) {
	good := encoded(t, goodFrame())
	for name, c := range map[string]struct {
		sent   []byte
		logged string
	}{
		"another magic": {[]byte("kvstore-frames/2\n"), "no protocol"},
		"too large":     {append([]byte(linkMagic), 0x01, 0x40, 0x00, 0x01), "impossible length"},
		"empty":         {append([]byte(linkMagic), 0, 0, 0, 0), "impossible length"},
		"no frame":      {append([]byte(linkMagic), 0, 0, 0, 2, 0xff, 0xff), "cannot be decoded"},
		"later":         {append(append([]byte(linkMagic), good...), 0xff, 0xff, 0xff, 0xff), "impossible length"},
	} {
		b := mustNode(t, "b", nodeOptions{})
		closed(t, dialRaw(t, b, c.sent))
		if line := await(t, b.logged, "a log line"); !strings.Contains(line, c.logged) {
			t.Errorf("%s: logged %q", name, line)
		}
	}
}

// A connection closed within a frame is closed here too, and logged.
func TestLinkEndsWithinFrame(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	good := encoded(t, goodFrame())
	conn := dialRaw(t, b, append([]byte(linkMagic), good[:len(good)-1]...))
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	closed(t, conn)
	if line := await(t, b.logged, "a log line"); !strings.Contains(line, "unexpected EOF") {
		t.Errorf("logged %q", line)
	}
}

// A newer link of a sender ends the older one, also when one of them is a
// stream.
func TestNewerLinkEndsOlder(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	older := dialRaw(t, b, append([]byte(linkMagic), encoded(t, goodFrame())...))
	b.collect(t, 1)
	newer := dialRaw(t, b, append([]byte(linkMagic), encoded(t, goodFrame())...))
	b.collect(t, 1)
	closed(t, older)
	client, err := b.ClientAt(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.Frames(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(goodFrame()); err != nil {
		t.Fatal(err)
	}
	b.collect(t, 1)
	closed(t, newer)
}

// TestUnnamedConnectionsAreBounded: with no place left a connection is closed
// at once, and gRPC on it too.
func TestUnnamedConnectionsAreBounded(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	for range maxUnnamed {
		b.unnamed <- struct{}{}
	}
	closed(t, dialRaw(t, b, []byte(linkMagic)))
	if line := await(t, b.logged, "a log line"); !strings.Contains(line, "not named themselves") {
		t.Errorf("logged %q", line)
	}
}

// TestLinksAreBounded: one more than the bound is refused.
func TestLinksAreBounded(t *testing.T) {
	b := mustNode(t, "b", nodeOptions{})
	for range maxLinks {
		b.links <- struct{}{}
	}
	if got := closed(t, dialRaw(t, b, []byte(linkMagic))); !strings.Contains(got, "as many links") {
		t.Errorf("the link ended with %q", got)
	}
}

// A port with TLS takes neither plain bytes nor a link without a certificate.
func TestLinkNeedsCertificate(t *testing.T) {
	_, s := mustTLS(t, t.TempDir(), "b")
	b := mustNode(t, "b", withTLS(s, "", false))
	closed(t, dialRaw(t, b, append([]byte(linkMagic), encoded(t, goodFrame())...)))
	config := s.Client()
	config.Certificates = nil
	config.ServerName, config.NextProtos = "localhost", []string{tlsconf.FramesProtocol}
	conn := tls.Client(dialRaw(t, b, nil), config)
	_, _ = conn.Write(encoded(t, goodFrame())) // TLS 1.3 refuses after the client's handshake
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a link without a certificate: %v", err)
	}
	if n := b.Stats().ReceivedFrames; n != 0 {
		t.Errorf("delivered %d frames", n)
	}
}

// TestCarrierChosen: links where both sides can, else streams.
func TestCarrierChosen(t *testing.T) {
	for _, streams := range []bool{false, true} {
		a, b := mustNode(t, "a", nodeOptions{}), mustNode(t, "b", nodeOptions{streams: streams})
		link(t, a, b)
		await(t, a.up, "the peer")
		a.Send("b", raftMessage(1, []byte("x")))
		a.Flush()
		b.collect(t, 1)
		if got := len(b.links) == 0; got != streams {
			t.Errorf("streams %v, expected %v", got, streams)
		}
	}
}

// What a reader holds grows with what came, not with what a length claims.
func TestLinkReaderMemory(t *testing.T) {
	prefix := binary.BigEndian.AppendUint32(nil, MaxMessageBytes)
	l := readerOf(append(prefix, make([]byte, 100)...))
	if _, err := l.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("half a frame: %v", err)
	}
	if cap(l.large) > 2*bodyStep {
		t.Fatalf("holds %d bytes", cap(l.large))
	}
}

func readerOf(b []byte) *linkReader {
	return &linkReader{r: bufio.NewReaderSize(bytes.NewReader(b), 4<<10), waiting: func(bool) {}}
}

// FuzzLinkReader: any bytes give frames, then one of the documented errors.
func FuzzLinkReader(f *testing.F) {
	good := encoded(f, goodFrame())
	large := goodFrame()
	large.Messages[0] = raftMessage(1, make([]byte, 10<<10))
	f.Add(good)
	f.Add(append(good, good[:7]...))
	f.Add(encoded(f, large))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := readerOf(b)
		for {
			_, err := l.next()
			if err == nil {
				continue
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && fault.CodeOf(err) != fault.InvalidArgument {
				t.Fatalf("error %v", err)
			}
			return
		}
	})
}

// Writing a frame to a link allocates nothing beside the frame.
func TestLinkSenderAllocations(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _ = here.Close() }()
	go func() { _, _ = io.Copy(io.Discard, there) }() // ends with here
	l := &linkSender{conn: here, armed: time.Now().Add(time.Hour)}
	body := make([]byte, 200)
	if n := testing.AllocsPerRun(100, func() {
		b := append(make([]byte, 0, 256), body...)
		f := frame{buf: &b}
		if err := l.send(&f); err != nil {
			t.Fatal(err)
		}
	}); n > 3 { // the frame and its buffer
		t.Errorf("%v allocations", n)
	}
}
