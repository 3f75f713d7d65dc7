package pipelink

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

func TestRead(t *testing.T) {
	whole := Append(Append(nil, Frame, []byte("abc")), Status, nil)
	r := bufio.NewReader(bytes.NewReader(whole))
	for _, want := range []struct {
		kind Kind
		body string
	}{{Frame, "abc"}, {Status, ""}} {
		k, b, err := Read(r, 3)
		if err != nil || k != want.kind || string(*b) != want.body {
			t.Fatalf("%q %q, %v", k, *b, err)
		}
	}
	if _, _, err := Read(r, 3); !errors.Is(err, io.EOF) {
		t.Fatalf("the end between frames: %v", err)
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		code  fault.Code
		cut   bool
	}{
		{"too large", Append(nil, Frame, []byte("abcd")), fault.MessageTooLarge, false},
		{"claims to be huge", []byte{'F', 255, 255, 255, 255}, fault.MessageTooLarge, false},
		{"of no kind", Append(nil, 'X', nil), fault.InvalidArgument, false},
		{"another protocol", []byte("HTTP/1.1 400 Bad Request\r\n"), fault.MessageTooLarge, false},
		{"cut in the head", whole[:3], "", true},
		{"cut in the body", whole[:6], "", true},
	} {
		_, _, err := Read(bufio.NewReader(bytes.NewReader(c.bytes)), 3)
		if c.cut && !errors.Is(err, io.ErrUnexpectedEOF) || !c.cut && fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	md := metadata.Pairs("authorization", "Bearer x", "user-agent", "a", "user-agent", "b")
	got, err := ParseMetadata(AppendMetadata(nil, md))
	if err != nil || len(got) != 2 || got.Get("authorization")[0] != "Bearer x" || len(got.Get("user-agent")) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	for _, b := range [][]byte{{5}, {1, 'a'}, {1, 'a', 9, 'b'}} {
		if _, err := ParseMetadata(b); fault.CodeOf(err) != fault.InvalidArgument {
			t.Errorf("%v: %v", b, err)
		}
	}
}

// serve accepts one link and gives it to f; what f returns ends it.
func serve(t *testing.T, f func(*Stream) error) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if s, err := Accept(context.Background(), conn, nil, 100); err == nil {
			s.Close(f(s))
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = conn.Close(), l.Close()
		<-done
	})
	return conn
}

func TestStream(t *testing.T) {
	var token string
	conn := serve(t, func(s *Stream) error {
		if md, ok := metadata.FromIncomingContext(s.Context()); ok {
			token = md.Get("authorization")[0]
		}
		if err := s.Greet(); err != nil {
			return err
		}
		q := &api.PipelineRequest{}
		if err := s.RecvMsg(q); err != nil {
			return err
		}
		if err := s.SendMsg(&api.PipelineResponse{Results: []*api.PipelineResult{{Id: q.Ops[0].Id}}}); err != nil {
			return err
		}
		return s.RecvMsg(q)
	})
	frame, err := proto.Marshal(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 77}}})
	if err != nil {
		t.Fatal(err)
	}
	b := Append(nil, Hello, AppendMetadata(nil, metadata.Pairs("authorization", "Bearer x")))
	if _, err := conn.Write(Append(Append(b, Frame, frame), Frame, make([]byte, 101))); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	next := func(want Kind) []byte {
		t.Helper()
		k, b, err := Read(r, MaxHello)
		if err != nil || k != want {
			t.Fatalf("%q instead of %q, %v", k, want, err)
		}
		return *b
	}
	next(Hello)
	answer := &api.PipelineResponse{}
	if err := proto.Unmarshal(next(Frame), answer); err != nil || answer.Results[0].Id != 77 {
		t.Fatalf("%v, %v", answer, err)
	}
	st := &spb.Status{}
	if err := proto.Unmarshal(next(Status), st); err != nil || status.FromProto(st).Code() != codes.Unknown { // guard gives it a code
		t.Fatalf("%v, %v", st, err)
	}
	if token != "Bearer x" {
		t.Fatalf("token %q", token)
	}
}

// A client that is gone is no failure of the server, whichever way it is noticed.
func TestBrokenConnections(t *testing.T) {
	for name, use := range map[string]func(s *Stream) error{
		"read":  func(s *Stream) error { return s.RecvMsg(&api.PipelineRequest{}) },
		"write": func(s *Stream) error { return s.SendMsg(&api.PipelineResponse{}) },
	} {
		ended := make(chan error, 1)
		conn := serve(t, func(s *Stream) error {
			err := s.Greet()
			for err == nil {
				err = use(s)
			}
			ended <- err
			return err
		})
		if _, err := conn.Write(append(Append(nil, Hello, nil), byte(Frame))); err != nil { // and a part of a frame
			t.Fatal(err)
		}
		if k, _, err := Read(bufio.NewReader(conn), MaxHello); k != Hello || err != nil {
			t.Fatalf("%q, %v", k, err)
		}
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil { // a reset
			t.Fatal(err)
		}
		_ = conn.Close()
		if err := <-ended; fault.CodeOf(err) != fault.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinksThatDoNotBegin(t *testing.T) {
	for name, b := range map[string][]byte{
		"a frame first": Append(nil, Frame, nil),
		"bad metadata":  Append(nil, Hello, []byte{9}),
		"large":         Append(nil, Hello, make([]byte, MaxHello+1)),
	} {
		conn := serve(t, func(*Stream) error {
			t.Errorf("%s: taken", name)
			return nil
		})
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if k, _, err := Read(bufio.NewReader(conn), MaxHello); k != Status && err == nil {
			t.Errorf("%s: %q", name, k)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(Append(Append(nil, Frame, []byte("abc")), Status, nil))
	f.Add([]byte{'F', 0, 0, 0, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			k, body, err := Read(r, 100)
			if err != nil {
				return
			}
			if len(*body) > 100 || k != Hello && k != Frame && k != Status {
				t.Fatalf("%q of %d bytes", k, len(*body))
			}
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add(AppendMetadata(nil, metadata.Pairs("a", "b", "c", "d")))
	f.Fuzz(func(t *testing.T, b []byte) {
		md, err := ParseMetadata(b)
		if err != nil {
			return
		}
		again, err := ParseMetadata(AppendMetadata(nil, md))
		if err != nil || len(again) != len(md) {
			t.Fatalf("%v comes back as %v, %v", md, again, err)
		}
	})
}

// caller opens a link to a server that does f.
func caller(t *testing.T, f func(*Stream) error) (*Caller, error) {
	t.Helper()
	return Open(serve(t, f), metadata.Pairs("authorization", "Bearer x"), 100)
}

func TestCaller(t *testing.T) {
	c, err := caller(t, func(s *Stream) error {
		if err := s.Greet(); err != nil {
			return err
		}
		q := &api.PipelineRequest{}
		if err := s.RecvMsg(q); err != nil {
			return err
		}
		if err := s.SendMsg(&api.PipelineResponse{Results: []*api.PipelineResult{{Id: q.Ops[0].Id}}}); err != nil {
			return err
		}
		if err := s.SendMsg(&api.PipelineResponse{Results: make([]*api.PipelineResult, 101)}); fault.CodeOf(err) != fault.MessageTooLarge {
			t.Errorf("a large frame: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(&api.PipelineRequest{Ops: make([]*api.PipelineOp, 101)}); fault.CodeOf(err) != fault.MessageTooLarge {
		t.Fatalf("a large frame: %v", err)
	}
	if err := c.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 77}}}); err != nil {
		t.Fatal(err)
	}
	answer := &api.PipelineResponse{}
	if err := c.Receive(answer); err != nil || answer.Results[0].Id != 77 {
		t.Fatalf("%v, %v", answer, err)
	}
	if err := c.Receive(answer); !errors.Is(err, io.EOF) {
		t.Fatalf("the server is done: %v", err)
	}
	if err := c.Receive(answer); status.Code(err) != codes.Unavailable {
		t.Fatalf("the connection has ended: %v", err)
	}
}

// Before its first frame a caller learns whether its link is taken.
func TestCallersThatAreNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		ends error
		want codes.Code
	}{
		"refused": {status.Error(codes.PermissionDenied, "not you"), codes.PermissionDenied},
		"done":    {nil, codes.Unavailable},
	} {
		if _, err := caller(t, func(*Stream) error { return c.ends }); status.Code(err) != c.want || errors.Is(err, ErrNoLinks) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, says := range map[string]string{"nothing": "", "HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n", "a frame": string(Append(nil, Frame, nil))} {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = Read(bufio.NewReader(there), MaxHello)
			_, _ = io.WriteString(there, says)
			_ = there.Close()
		}()
		if _, err := Open(here, nil, 100); !errors.Is(err, ErrNoLinks) {
			t.Errorf("%s: %v", name, err)
		}
		_ = here.Close()
		<-done
	}
}
