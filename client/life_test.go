package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	api "kvstore/api/kvstore/v1"
)

// ownGoroutines counts goroutines that a Client started.
func ownGoroutines() int {
	buf := make([]byte, 1<<20)
	stacks := string(buf[:runtime.Stack(buf, true)])
	return strings.Count(stacks, "(*Client).spawn") + strings.Count(stacks, "(*pipe).receive")
}

func TestCloseEndsWhatIsInFlight(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(nil)
	sent := make(chan struct{}, 2)
	f.nodes[0].setFault(func(*api.PipelineOp) opFault {
		sent <- struct{}{}
		return opFault{mute: true}
	})
	key := f.keyLedBy(f.nodes[0], "k")
	put, get := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), key, nil)
		put <- err
	}()
	go func() {
		_, err := c.Get(t.Context(), key)
		get <- err
	}()
	<-sent
	<-sent
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-put, ErrUnknownOutcome)
	wantError(t, <-get, ErrClosed)
	if n := ownGoroutines(); n != 0 {
		t.Fatalf("%d goroutines outlive Close", n)
	}
	_, err := c.Put(t.Context(), key, nil)
	wantError(t, err, ErrClosed)
	_, err = c.List(t.Context())
	wantError(t, err, ErrClosed)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNewWithoutAnyNode(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.nodes[0].stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := New(ctx, Config{Endpoints: f.endpoints()})
	wantError(t, err, ErrUnavailable)
	if !strings.Contains(err.Error(), f.nodes[0].addr) {
		t.Fatalf("error %v names no endpoint", err)
	}
	if n := ownGoroutines(); n != 0 {
		t.Fatalf("%d goroutines left", n)
	}
}

func TestNewSkipsDeadEndpoints(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.nodes[0].stop()
	f.nodes[2].stop()
	mustPut(t, f.client(nil), "k", "v")
}

func TestConfigProblemsComeAtOnce(t *testing.T) {
	_, err := New(t.Context(), Config{Endpoints: []string{"nowhere", "grpcs://h:1", "ftp://h:1"}, Token: "t", Read: 9, ConnsPerNode: 65, MaxPending: 1 << 30, Timeout: -1})
	wantError(t, err, ErrInvalidArgument)
	for _, part := range []string{"nowhere", "needs TLS", "ftp", "Token", "Read", "ConnsPerNode", "MaxPending", "Timeout"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	_, err = New(t.Context(), Config{})
	wantError(t, err, ErrInvalidArgument)
}

// S0.7: KVClient takes grpc:// addresses.
func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.4:8085": "10.0.0.4:8085", "grpc://10.0.0.4:8085": "10.0.0.4:8085", "https://h:1/": "h:1", "[::1]:8080": "[::1]:8080",
	} {
		if got, err := parseEndpoint(in, true); err != nil || got != want {
			t.Errorf("%s is %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":80", "h:", "h", "h:1/path", "x://h:1"} {
		if got, err := parseEndpoint(in, true); err == nil {
			t.Errorf("%q is %q", in, got)
		}
	}
}

func TestTokenIsSent(t *testing.T) {
	f := newFakeCluster(t, 1)
	var got atomic.Value
	f.nodes[0].setRefuse(func(ctx context.Context, _ string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		got.Store(strings.Join(md.Get("authorization"), ","))
		return nil
	})
	c := f.client(func(cfg *Config) { cfg.Token, cfg.PlaintextToken = "secret", true })
	mustPut(t, c, "k", "v")
	if got.Load() != "Bearer secret" {
		t.Fatalf("authorization %q", got.Load())
	}
}

func TestReadPolicyNames(t *testing.T) {
	for _, r := range []ReadFrom{Leader, Any, Nearest} {
		if got, err := ParseReadFrom(r.String()); err != nil || got != r {
			t.Errorf("%v parses as %v, %v", r, got, err)
		}
	}
	_, err := ParseReadFrom("best")
	wantError(t, err, ErrInvalidArgument)
}

// Many callers while nodes die, come back, drop streams and refuse: no write
// is executed twice, every acknowledged one once.
func TestNoWriteIsExecutedTwice(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.RefreshInterval = 5 * time.Millisecond; cfg.ConnsPerNode = 2 })
	for _, n := range f.nodes {
		n.setFault(func(*api.PipelineOp) opFault {
			switch rand.IntN(150) {
			case 0:
				return opFault{dropBefore: true}
			case 1:
				return opFault{dropAfter: true}
			case 2:
				return opFault{status: statusOf(CodeOverloaded)}
			case 3:
				return opFault{status: statusOf(CodeWrongLeader)}
			}
			return opFault{}
		})
	}
	const writers, each = 32, 100
	outcomes := make([]map[string]error, writers)
	var wg, restarts sync.WaitGroup
	progress := make(chan struct{})
	restarts.Go(func() {
		for range progress {
			n := f.nodes[rand.IntN(3)]
			n.stop()
			n.start(n.addr)
		}
	})
	for w := range writers {
		outcomes[w] = make(map[string]error)
		wg.Go(func() {
			for i := range each {
				if w == 0 && i%5 == 0 {
					progress <- struct{}{}
				}
				key := fmt.Sprintf("w%d/%d", w, i)
				_, err := c.Put(t.Context(), key, []byte(key))
				outcomes[w][key] = err
				if _, err := c.Get(t.Context(), key, From(Any)); err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("get %s: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	close(progress)
	restarts.Wait()
	unknown := 0
	for _, m := range outcomes {
		for key, err := range m {
			n := f.executions(key)
			switch {
			case err == nil && n != 1, n > 1:
				t.Errorf("%s: executed %d times, answered %v", key, n, err)
			case errors.Is(err, ErrUnknownOutcome):
				unknown++
			case err != nil:
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	t.Logf("%d writes, %d unknown, %+v", writers*each, unknown, c.Stats())
}
