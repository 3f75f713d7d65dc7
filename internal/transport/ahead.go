package transport

import "context"

// ahead moves the messages of one stream from a receiving goroutine, which
// decodes ahead by one, to the stream's handler.
type ahead[M any] struct {
	messages chan M
	err      chan error
}

// receiveAhead reads a stream until it ends or ctx does. Only the handler's
// return ends a stream, so the handler cannot wait for the goroutine; Close does.
func receiveAhead[M any](ctx context.Context, t *Transport, recv func() (M, error)) ahead[M] {
	a := ahead[M]{messages: make(chan M), err: make(chan error, 1)}
	t.wg.Go(func() {
		for {
			m, err := recv()
			if err != nil {
				a.err <- err
				return
			}
			select {
			case a.messages <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	return a
}
