package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

const firstRedial = 20 * time.Millisecond

// framesStream describes the stream of Peer.Frames for the raw codec.
var framesStream = &grpc.StreamDesc{StreamName: "Frames", ClientStreams: true}

// run is the sender: it keeps a session to the peer until it is stopped.
func (p *peer) run() {
	delay := firstRedial
	for p.ctx.Err() == nil {
		began := time.Now()
		up, err := p.session(p.ctx)
		p.queue.discard()
		if p.ctx.Err() != nil {
			return
		}
		p.ended(up, err)
		if up && time.Since(began) > p.t.o.MaxRedial {
			delay = firstRedial
		}
		p.pause(delay)
		delay = min(2*delay, p.t.o.MaxRedial)
	}
}

// pause waits for delay +- 50 %, a sign of life of the peer, or the end.
func (p *peer) pause(delay time.Duration) {
	timer := time.NewTimer(delay/2 + rand.N(delay)) // #nosec G404 -- jitter
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.kick:
	case <-p.ctx.Done():
	}
}

// session greets the peer and sends frames until the stream ends. up reports
// whether the greeting succeeded.
func (p *peer) session(ctx context.Context) (up bool, err error) {
	version, links, err := p.greet(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &frameHeader{cluster: p.t.Cluster(), from: string(p.t.o.Node), to: string(p.id), version: version}
	out, ended, err := p.open(ctx, h, links)
	if err != nil {
		return false, err
	}
	p.began()
	return true, p.sendFrames(out, h, ended)
}

// outgoing carries frames to a peer.
type outgoing interface {
	// send writes one frame, whose buffer it releases. After an error nothing
	// more can be sent.
	send(f *frame) error
}

// open makes a link when both sides can, else a stream. It ends with ctx.
func (p *peer) open(ctx context.Context, h *frameHeader, links uint32) (outgoing, <-chan error, error) {
	if links >= linkVersion && p.t.dialsLinks() {
		return p.openLink(ctx, h)
	}
	return p.openStream(ctx)
}

// streamSender writes frames to Peer.Frames.
type streamSender struct{ stream grpc.ClientStream }

func (p *peer) openStream(ctx context.Context) (outgoing, <-chan error, error) {
	stream, err := p.frames.NewStream(ctx, framesStream, api.Peer_Frames_FullMethodName, grpc.ForceCodecV2(newFrameCodec()))
	if err != nil {
		return nil, nil, fmt.Errorf("opening the stream of frames: %w", err)
	}
	ended := make(chan error, 1)
	p.t.wg.Go(func() { ended <- awaitEnd(stream) })
	return streamSender{stream}, ended, nil
}

func (s streamSender) send(f *frame) error {
	defer f.release()
	return s.stream.SendMsg(f)
}

// awaitEnd returns why the receiver ended the stream.
func awaitEnd(stream grpc.ClientStream) error {
	err := stream.RecvMsg(new(api.FramesDone))
	if err == nil {
		return errors.New("the peer ended the stream")
	}
	return err
}

// sendFrames writes what is queued until the stream ends, and returns why it
// did. ended receives exactly one value.
func (p *peer) sendFrames(out outgoing, h *frameHeader, ended <-chan error) error {
	for {
		for f := p.queue.pop(); f != nil; f = p.queue.pop() {
			p.t.stamp(h)
			f.seal(h)
			if err := p.sendFrame(out, f); err != nil {
				return whyEnded(err, <-ended)
			}
		}
		select {
		case <-p.queue.wake:
		case err := <-ended:
			return err
		}
	}
}

// whyEnded prefers what the receiver said to the error of a write.
func whyEnded(write, ended error) error {
	if errors.Is(ended, os.ErrDeadlineExceeded) || errors.Is(ended, net.ErrClosed) {
		return write
	}
	return ended
}

// stamp sets what may differ from frame to frame.
func (t *Transport) stamp(h *frameHeader) {
	h.clockMS, h.recovery = t.o.Clock.Wall(), t.Recovery().Epoch
}

// sendFrame writes one frame; an error means that the stream ends.
func (p *peer) sendFrame(out outgoing, f *frame) error {
	bytes, messages := f.size(), f.messages
	if err := out.send(f); err != nil {
		p.queue.lost(messages)
		return err
	}
	p.sent(bytes, messages)
	return nil
}

// logEvery is the shortest interval at which failed attempts are logged.
const logEvery = 10 * time.Second

// ended notes why a session failed. The end of a stream is always logged, a
// failed attempt when its reason is new and the last line is old enough.
func (p *peer) ended(up bool, err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the stream was reset")
	}
	p.forwards.Store(forwardsUnknown) // another version may come back
	p.mu.Lock()
	worth := up || p.status.LastError != err.Error() && time.Since(p.logged) >= logEvery
	if worth {
		p.logged = time.Now()
	}
	p.status.Up = false
	p.status.LastError = err.Error()
	p.status.Since = time.Now()
	p.mu.Unlock()
	if worth {
		p.t.o.Logger.Warn("peer is not connected", "peer", p.id, "addr", p.addr, "error", err)
	}
	if up && p.t.o.OnDown != nil {
		p.t.o.OnDown(p.id, err)
	}
}

func (p *peer) began() {
	p.mu.Lock()
	p.status.Up = true
	p.status.LastError = ""
	p.status.Since = time.Now()
	p.status.Sessions++
	p.mu.Unlock()
	p.t.o.Logger.Info("peer is connected", "peer", p.id, "addr", p.addr)
	if p.t.o.OnUp != nil {
		p.t.o.OnUp(p.id)
	}
}

func (p *peer) sent(bytes, messages int) {
	p.mu.Lock()
	p.status.Frames++
	p.status.Bytes += int64(bytes)
	p.status.Messages += int64(messages)
	p.mu.Unlock()
}
