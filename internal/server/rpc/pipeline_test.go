package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/server/status"
)

// Answers come in any order, each once, also when they are made by many
// goroutines while the stream is bounded to a few operations.
func TestPipelineAnswersEverything(t *testing.T) {
	for _, bound := range []int{1, 7, 100_000} {
		t.Run(fmt.Sprint(bound), func(t *testing.T) {
			f := newFixture(t, guard.Options{}, Options{MaxInflight: bound, FrameBytes: 4 << 10})
			var wg sync.WaitGroup
			f.backend.Later = func(answer func()) { wg.Go(answer) }
			s, err := f.client.Pipeline(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			const frames, perFrame = 50, 40
			sent := make(chan error, 1)
			go func() { sent <- sendFrames(s, frames, perFrame) }()
			seen := map[uint64]bool{}
			for {
				resp, err := s.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range resp.Results {
					if seen[r.Id] || r.Status != nil {
						t.Fatalf("operation %d: twice %v, status %v", r.Id, seen[r.Id], r.Status)
					}
					seen[r.Id] = true
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if len(seen) != frames*perFrame {
				t.Errorf("%d answers", len(seen))
			}
			wg.Wait()
		})
	}
}

func sendFrames(s grpc.BidiStreamingClient[api.PipelineRequest, api.PipelineResponse], frames, perFrame int) error {
	id := uint64(0)
	for range frames {
		req := &api.PipelineRequest{}
		for range perFrame {
			id++
			put := &api.PutRequest{Key: fmt.Sprintf("k%d", rand.IntN(100)), Value: make([]byte, rand.IntN(2000))}
			req.Ops = append(req.Ops, &api.PipelineOp{Id: id, Op: &api.PipelineOp_Put{Put: put}})
		}
		if err := s.Send(req); err != nil {
			return err
		}
	}
	return s.CloseSend()
}

// Waiting answers leave in one frame: no linger, no frame per operation.
func TestPipelineCoalescesAnswers(t *testing.T) {
	p := &pipeline{s: &Service{o: Options{FrameBytes: 3 * perOperation}}, wake: make(chan struct{}, 1), space: make(chan struct{}, 1)}
	for i := range 7 {
		p.inflight++
		p.answer(&api.PipelineResult{Id: uint64(i)}, 0)
	}
	s := &frames{}
	if err := p.send(s); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(s.sizes) != "[3 3 1]" || p.inflight != 0 || p.bytes != 0 {
		t.Errorf("frames %v, in flight %d, bytes %d", s.sizes, p.inflight, p.bytes)
	}
}

// frames notes the sizes of what is sent.
type frames struct {
	grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]
	sizes []int
}

func (f *frames) Send(r *api.PipelineResponse) error {
	f.sizes = append(f.sizes, len(r.Results))
	return nil
}

// A stream that is full is not read, and its memory stays bounded.
func TestPipelineStopsReadingAtItsBound(t *testing.T) {
	p := &pipeline{s: &Service{o: Options{MaxInflight: 10, MaxInflightBytes: 10 * perOperation}}}
	ops := func(n int) *frame { return p.newFrame(make([]*api.PipelineOp, n)) }
	for _, c := range []struct {
		n    int
		want bool
	}{{50, true}, {1, false}} { // a giant goes alone
		if ok, err := p.begin(ops(c.n)); ok != c.want || err != nil {
			t.Fatalf("%d operations: %v %v", c.n, ok, err)
		}
	}
	p.inflight, p.bytes, p.recent = 1, 0, 5*perOperation
	get := []*api.PipelineOp{{Op: &api.PipelineOp_Get{Get: &api.GetRequest{}}}, {Op: &api.PipelineOp_Get{Get: &api.GetRequest{}}}}
	if ok, _ := p.begin(p.newFrame(get)); ok {
		t.Error("reads are not charged with what reads return")
	}
}

func TestPipelineOverloadAnswersEachOperation(t *testing.T) {
	f := newFixture(t, guard.Options{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 1}, Options{})
	release := make(chan struct{})
	var wg sync.WaitGroup
	f.backend.Later = func(answer func()) { wg.Go(func() { <-release; answer() }) }
	s, err := f.client.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	op := func(id uint64) *api.PipelineRequest {
		return &api.PipelineRequest{Ops: []*api.PipelineOp{{Id: id, Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k"}}}}}
	}
	for id := range uint64(2) {
		if err := s.Send(op(id)); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := s.Recv()
	if err != nil || resp.Results[0].Id != 1 || resp.Results[0].Status.GetCode() != "overloaded" || resp.Results[0].Status.RetryAfterMs == 0 {
		t.Errorf("%v %v", resp, err)
	}
	close(release)
	if resp, err := s.Recv(); err != nil || resp.Results[0].Id != 0 {
		t.Errorf("%v %v", resp, err)
	}
	wg.Wait()
}

// A draining node answers what it took and says that it took nothing else.
func TestDrainEndsPipelines(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	taken, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	f.backend.Later = func(answer func()) { close(taken); wg.Go(func() { <-release; answer() }) }
	s, err := f.client.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 5, Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: "k"}}}}}); err != nil {
		t.Fatal(err)
	}
	<-taken
	f.service.Drain()
	close(release)
	if resp, err := s.Recv(); err != nil || resp.Results[0].Id != 5 {
		t.Errorf("%v %v", resp, err)
	}
	if _, err := s.Recv(); status.CodeOf(err) != fault.Unavailable {
		t.Errorf("end of the stream: %v", err)
	}
	wg.Wait()
}

// A panic while operations are handed over ends the stream, not the process.
func TestPipelinePanic(t *testing.T) {
	f := newFixture(t, guard.Options{}, Options{})
	f.backend.Fail = func(context.Context, *api.PipelineOp) error { panic("boom") }
	s, err := f.client.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&api.PipelineRequest{Ops: []*api.PipelineOp{{Id: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.CodeOf(err) != fault.Internal {
		t.Errorf("%v", err)
	}
}
