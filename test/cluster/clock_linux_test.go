package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/internal/keyspace"
	"kvstore/test/cluster/harness"
)

// TestChaosClock: the clock of a node that leads jumps ten minutes ahead, back,
// and ten minutes behind. The node gives its leaderships up and says so; writes go
// on; revisions neither go back nor follow the clock; no key expires early or late
// by more than is documented; histories are linearizable.
func TestChaosClock(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	file := filepath.Join(t.TempDir(), "clock")
	set := func(off string) {
		t.Helper()
		next := file + ".new"
		if err := errors.Join(os.WriteFile(next, []byte(off), 0o600), os.Rename(next, file)); err != nil {
			t.Fatal(err)
		}
	}
	set("0s")
	program := harness.Program(t, "kvstore/test/chaosnode")
	c.Kill(0)
	c.RestartAs(0, program, "CHAOS_CLOCK_FILE="+file)
	c.WaitReady()
	r, w := startRegisters(t, c), startStamps(t, c)
	long := putExpiring(t, c, "long", 10*time.Minute)
	for _, off := range []string{"10m", "-10m"} {
		settleLeaders(t, c)
		w.expire(8*time.Second, 3*time.Second) // across the jump
		set(off)
		clockIsOff(t, c, off)
		w.expire(3*time.Second, 0) // while it is off
		w.wait()
		set("0s")
		w.expire(3*time.Second, 0) // across the way back
		w.wait()
	}
	settleLeaders(t, c)
	w.stop()
	if _, err := c.Client(client.Config{}).Get(t.Context(), long); err != nil {
		t.Errorf("a key with ten minutes to live: %v", err)
	}
	r.check()
	c.ExpectEqualDigests(3)
}

// clockIsOff waits until node 0 leads nothing and says why.
func clockIsOff(t *testing.T, c *harness.Cluster, off string) {
	t.Helper()
	want, err := time.ParseDuration(off)
	if err != nil {
		t.Fatal(err)
	}
	took := harness.Timed(func() {
		harness.Eventually(t, func() error {
			if led := ledBy(t, c, 0); len(led) > 0 {
				return fmt.Errorf("node 0 leads %v", led)
			}
			return nil
		})
	})
	harness.Eventually(t, func() error {
		var view struct {
			Nodes []struct {
				Name  string `json:"name"`
				Ahead int64  `json:"clock_ahead_ms"`
				Off   bool   `json:"clock_off"`
				Leads int    `json:"leads"`
			} `json:"nodes"`
		}
		if err := json.Unmarshal([]byte(c.MustCtl("status", "-o", "json")), &view); err != nil {
			return err
		}
		for _, n := range view.Nodes {
			ahead := time.Duration(n.Ahead) * time.Millisecond
			switch own := n.Name == c.Nodes()[0].Name; {
			case own && (!n.Off || n.Leads > 0 || (ahead-want).Abs() > time.Second):
				return fmt.Errorf("%s says that its clock is off: %v, by %v, and leads %d", n.Name, n.Off, ahead, n.Leads)
			case !own && n.Off:
				return fmt.Errorf("%s says that its clock is off by %v", n.Name, ahead)
			}
		}
		return nil
	})
	side := map[bool]string{true: " behind the others'", false: " ahead of the others'"}[want < 0]
	if out := c.MustCtl("status"); !strings.Contains(out, "n1: its clock is ") || !strings.Contains(out, side) {
		t.Errorf("kvctl status does not say that the clock is off:\n%s", out)
	}
	t.Logf("the node whose clock is off by %s led for %v more", off, took.Round(time.Millisecond))
}

func putExpiring(t *testing.T, c *harness.Cluster, name string, ttl time.Duration) (key string) {
	t.Helper()
	key = "clock/" + name
	retryUnavailable(t, func() error {
		_, err := c.Client(client.Config{}).Put(t.Context(), key, []byte("x"), client.WithTTL(ttl))
		return err
	})
	return key
}

// stamps writes one key of every group again and again and judges the revisions,
// and keys that expire.
type stamps struct {
	t       *testing.T
	c       *harness.Cluster
	cl      *client.Client
	keys    map[uint32]string
	done    chan struct{}
	writers sync.WaitGroup
	expires sync.WaitGroup
	n       int
}

// Bounds of what is seen from outside, on a loaded machine: revisions are stamped
// by clocks clipped to 500 ms from the others', a ceiling may be a second ahead,
// and an answer takes its time.
const (
	revisionAhead = 3 * time.Second
	expiryEarly   = 1500*time.Millisecond + 500*time.Millisecond
	expiryLate    = 5 * time.Second
	longestPause  = 20 * time.Second
)

func startStamps(t *testing.T, c *harness.Cluster) *stamps {
	t.Helper()
	s := &stamps{t: t, c: c, cl: c.Client(client.Config{}), keys: map[uint32]string{}, done: make(chan struct{})}
	m := members(t, c)
	for _, g := range m.topology.GetGroups() {
		if id := g.GetGroup(); id != 0 {
			s.keys[id] = m.keyIn(t, id)
			s.writers.Go(func() { s.write(id) })
		}
	}
	t.Cleanup(s.end)
	return s
}

func (s *stamps) end() {
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	s.writers.Wait()
	s.expires.Wait()
}

// write judges revisions of one key as they come.
func (s *stamps) write(group uint32) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var last uint64
	acknowledged := time.Now()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
		}
		res, err := s.cl.Put(s.t.Context(), s.keys[group], []byte("x"))
		if err != nil {
			continue
		}
		now := time.Now()
		stamp := time.UnixMilli(keyspace.Revision(res.Revision).UnixMilli())
		switch {
		case res.Revision <= last:
			s.t.Errorf("group %d: revision %d after %d", group, res.Revision, last)
		case stamp.Sub(now) > revisionAhead:
			s.t.Errorf("group %d: a revision is stamped %v ahead", group, stamp.Sub(now))
		case now.Sub(acknowledged) > longestPause:
			s.t.Errorf("group %d took no writes for %v", group, now.Sub(acknowledged))
		}
		last, acknowledged = res.Revision, now
	}
}

// expire puts a key into every group that lives for ttl and sees, beside the
// test, when it is gone; it returns after a while.
func (s *stamps) expire(ttl, after time.Duration) {
	s.t.Helper()
	s.n++
	for group, key := range s.keys {
		key = fmt.Sprintf("{%s}/expiring/%d", key, s.n)
		began := time.Now()
		retryUnavailable(s.t, func() error {
			began = time.Now()
			_, err := s.cl.Put(s.t.Context(), key, []byte("x"), client.WithTTL(ttl))
			return err
		})
		written := time.Now()
		s.expires.Go(func() { s.watch(group, key, began, written, ttl) })
	}
	harness.Pass(s.t, after)
}

// watch judges when a key is gone whose write began and was acknowledged then: its
// time is counted from a moment between. A read sees it at a moment between its call
// and its answer, and one without an answer sees nothing.
func (s *stamps) watch(group uint32, key string, began, written time.Time, ttl time.Duration) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		asked := time.Since(written)
		_, err := s.cl.Get(s.t.Context(), key)
		lived := time.Since(began)
		switch gone := errors.Is(err, client.ErrNotFound); {
		case gone && lived < ttl-expiryEarly:
			s.t.Errorf("group %d: a key lived for %v of %v", group, lived, ttl)
			return
		case gone:
			return
		case err == nil && asked > ttl+expiryLate, asked > ttl+harness.Patience:
			s.t.Errorf("group %d: a key lived for %v of %v, %v", group, asked, ttl, err)
			return
		}
	}
}

func (s *stamps) wait() { s.expires.Wait() }

// stop ends the workload.
func (s *stamps) stop() { s.t.Helper(); s.end() }
