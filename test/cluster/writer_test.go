//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// writerVariable makes this test binary a writer: a process of its own, so
// that what it was told survives whatever happens to the test.
const writerVariable = "_KVSTORE_TEST_WRITER"

type writerConfig struct {
	Endpoints     []string
	CA, Cert, Key string
	Journal       string
	Workers       int
	// Every is the time from one write of a worker to its next; 0 for at once.
	Every time.Duration
}

// writer is the parent's side of a writer process.
type writer struct {
	t       *testing.T
	p       *harness.Process
	journal string
}

// startWriter writes until stop. It goes on through every fault.
func startWriter(t *testing.T, c *harness.Cluster, workers int) *writer {
	t.Helper()
	return startPacedWriter(t, c, workers, 0)
}

// startPacedWriter leaves time between writes, for tests in which other things
// take long.
func startPacedWriter(t *testing.T, c *harness.Cluster, workers int, every time.Duration) *writer {
	t.Helper()
	config := writerConfig{Endpoints: c.Endpoints(), Journal: filepath.Join(t.TempDir(), "journal"), Workers: workers, Every: every}
	if c.TLS {
		config.CA, config.Cert, config.Key = c.TLSFiles()
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), writerVariable+"="+string(text))
	w := &writer{t: t, p: harness.StartProcess(t, "writer", cmd), journal: config.Journal}
	w.waitFor(1)
	return w
}

// outcomes counts the journal's lines.
func (w *writer) outcomes() int {
	info, err := os.Stat(w.journal)
	if err != nil {
		return 0
	}
	return int(info.Size() / lineBytes)
}

// waitFor waits until the journal has n lines.
func (w *writer) waitFor(n int) {
	w.t.Helper()
	harness.Within(w.t, 10*harness.Patience, func() error {
		select {
		case <-w.p.Ended():
			w.t.Fatalf("the writer ended:\n%s", w.p.Out)
		default:
		}
		if got := w.outcomes(); got < n {
			return fmt.Errorf("the writer has %d outcomes, want %d:\n%s", got, n, w.p.Out)
		}
		return nil
	})
}

// waitMore waits for n further outcomes.
func (w *writer) waitMore(n int) { w.t.Helper(); w.waitFor(w.outcomes() + n) }

// stop ends the process after the operations in flight.
func (w *writer) stop() {
	w.t.Helper()
	_ = w.p.Stdin.Close()
	if code := w.p.Wait(w.t, harness.Patience); code != 0 {
		w.t.Fatalf("the writer ended with %d:\n%s", code, w.p.Out)
	}
}

// writerMain is the writer process.
func writerMain(text string) int {
	var config writerConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := runWriter(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runWriter(config writerConfig) (err error) {
	cfg := client.Config{Endpoints: config.Endpoints, Timeout: 10 * time.Second}
	if config.CA != "" {
		if cfg.TLS, err = client.LoadTLS(config.CA, config.Cert, config.Key); err != nil {
			return err
		}
	}
	c, err := client.New(context.Background(), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f, err := os.OpenFile(config.Journal, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	j := &syncedJournal{f: f, in: make(chan journalled, config.Workers)}
	done := make(chan error, 1)
	go func() { done <- j.run() }()
	stop := make(chan struct{})
	go func() { // the parent closes standard input, or is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	var workers sync.WaitGroup
	for w := range config.Workers {
		workers.Go(func() { work(c, j, w, config.Every, stop) })
	}
	workers.Wait()
	close(j.in)
	return errors.Join(<-done, f.Close())
}

// work writes one key after the other and journals every outcome before it
// goes on.
func work(c *client.Client, j *syncedJournal, worker int, every time.Duration, stop <-chan struct{}) {
	next := time.NewTimer(0)
	defer next.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-next.C:
			next.Reset(every)
		}
		outcome := byte('A')
		_, err := c.Put(context.Background(), keyOf(worker, n), valueOf(worker, n))
		switch {
		case errors.Is(err, client.ErrUnknownOutcome):
			outcome = 'U'
		case err != nil:
			outcome = 'F'
			fmt.Fprintln(os.Stderr, keyOf(worker, n), n, err)
		}
		j.add(line{outcome, worker, n})
	}
}

// syncedJournal makes lines durable, many with one fsync.
type syncedJournal struct {
	f  *os.File
	in chan journalled
}

type journalled struct {
	line line
	done chan struct{}
}

// add returns when the line is on the disk.
func (j *syncedJournal) add(l line) {
	done := make(chan struct{})
	j.in <- journalled{l, done}
	<-done
}

func (j *syncedJournal) run() error {
	for first := range j.in {
		batch := []journalled{first}
		for len(j.in) > 0 {
			batch = append(batch, <-j.in)
		}
		var text []byte
		for _, e := range batch {
			text = append(text, e.line.String()...)
		}
		if _, err := j.f.Write(text); err != nil {
			return err
		}
		if err := j.f.Sync(); err != nil {
			return err
		}
		for _, e := range batch {
			close(e.done)
		}
	}
	return nil
}
