package client

import (
	"errors"
	"testing"
)

// A watch that comes while its stream ends is told why, as one value: under the race
// detector.
func TestAddMeetsTheEndOfItsStream(t *testing.T) {
	ws := &watchStream{err: &lostError{cause: errNotConnected}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 1000 {
			ws.mu.Lock()
			ws.err = newError(CodeUnavailable, "stopping")
			ws.mu.Unlock()
		}
	}()
	for range 1000 {
		err := ws.add(&subscription{})
		var lost *lostError
		var said *Error
		if !errors.As(err, &lost) && !errors.As(err, &said) {
			t.Error(err)
		}
	}
	<-ended
}
