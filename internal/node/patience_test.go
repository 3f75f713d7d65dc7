package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"kvstore/internal/config"
)

// TestPortOfDyingProcess: a port that is about to be released is waited for.
func TestPortOfDyingProcess(t *testing.T) {
	dying, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := "127.0.0.1:0"
	l := config.Listen{HTTP: dying.Addr().String(), GRPC: free, Peer: free, Gossip: free, Metrics: free}
	attempts := 0
	var got *listeners
	err = patiently(func() (err error) {
		if attempts++; attempts == 2 {
			if err := dying.Close(); err != nil {
				t.Fatal(err)
			}
		}
		got, err = openListeners(l)
		return err
	})
	if err != nil || attempts != 2 {
		t.Fatalf("after %d attempts: %v", attempts, err)
	}
	got.close()
	other := errors.New("other")
	attempts = 0
	if err := patiently(func() error { attempts++; return other }); !errors.Is(err, other) || attempts != 1 {
		t.Errorf("another error is tried %d times: %v", attempts, err)
	}
	if err := patiently(func() error { return fmt.Errorf("bind: %w", syscall.EADDRINUSE) }); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that stays in use: %v", err)
	}
}
