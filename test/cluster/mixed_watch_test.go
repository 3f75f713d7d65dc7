//go:build unix

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
	"kvstore/test/history"
)

// mixedStreams are watches of what a mixed workload writes.
type mixedStreams struct {
	ctx    context.Context // of all watches
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu  sync.Mutex
	all []*mixedStream
}

// mixedStream is one watcher.
type mixedStream struct {
	prefix string
	opts   []client.WatchOption
	// resumes: the watcher leaves now and then, and another client goes on with its
	// token.
	resumes bool
	// until this revision, when it is not 0; else to the end.
	until uint64

	mu  sync.Mutex // of all below but token
	got history.Stream
	at  uint64 // the revision of the last update
	err error
	// token of the last update.
	token string
}

// resumeAfter updates a watcher that resumes leaves.
const resumeAfter = 200

func (m *mixed) startStreams() {
	m.t.Helper()
	m.stream.ctx, m.stream.cancel = context.WithCancel(context.Background())
	for _, s := range []*mixedStream{
		{prefix: "la/"}, {prefix: "la/", resumes: true}, {prefix: "st/", opts: []client.WatchOption{client.OwnStream()}}, {prefix: bankPrefix}, {prefix: ttlPrefix},
	} {
		m.watch(s)
	}
	for _, s := range m.stream.all {
		harness.Eventually(m.t, func() error { return s.reached(1) })
	}
}

// watch starts a watcher.
func (m *mixed) watch(s *mixedStream) {
	s.got = history.Stream{Name: s.prefix, From: s.got.From, Match: func(key string) bool { return strings.HasPrefix(key, s.prefix) }}
	switch {
	case s.resumes:
		s.got.Name += ", resumed"
	case s.got.From > 0:
		s.got.Name += ", late"
	}
	m.stream.mu.Lock()
	defer m.stream.mu.Unlock()
	m.stream.all = append(m.stream.all, s)
	m.stream.group.Go(func() { s.run(m.stream.ctx, m.clients) })
}

// watchPast starts a watcher of a range of revisions that is past, or nearly.
func (m *mixed) watchPast(prefix string, from, until uint64) {
	m.watch(&mixedStream{prefix: prefix, opts: []client.WatchOption{client.FromRevision(from)}, until: until, got: history.Stream{From: from}})
}

func (s *mixedStream) run(ctx context.Context, clients []*client.Client) {
	for n := 0; ctx.Err() == nil; n++ {
		opts := append([]client.WatchOption{client.WithPrefix(s.prefix)}, s.opts...)
		if s.token != "" {
			opts = append([]client.WatchOption{client.WithPrefix(s.prefix)}, client.Resume(s.token))
		}
		updates := 0
		for u, err := range clients[n%len(clients)].Watch(ctx, opts...) {
			if err != nil {
				s.fail(ctx, err)
				return
			}
			s.take(u)
			if s.until > 0 && u.Revision >= s.until {
				return
			}
			if updates++; s.resumes && updates == resumeAfter {
				break
			}
		}
	}
}

func (s *mixedStream) fail(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil || !errors.Is(err, client.ErrCanceled) {
		s.err = err
	}
}

func (s *mixedStream) take(u client.Update) {
	out := history.Update{Revision: u.Revision}
	for _, ev := range u.Events {
		e := history.Event{Key: ev.Record.Key, Revision: ev.Record.Revision, Version: ev.Record.Version,
			Delete: ev.Type == client.EventDelete, Expired: ev.Reason == "expired"}
		if !e.Delete {
			e.Value = string(ev.Record.Value)
		}
		if s.prefix == "la/" {
			e.Value = listMark(e.Value)
		}
		out.Events = append(out.Events, e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(out.Events) > 0 || len(s.got.Updates) == 0 {
		s.got.Updates = append(s.got.Updates, out)
	} else { // only the last of those without events matters
		s.got.Updates[len(s.got.Updates)-1].Revision = max(u.Revision, s.at)
	}
	if u.Revision < s.at {
		s.err = fmt.Errorf("an update up to %d after one up to %d", u.Revision, s.at)
	}
	s.at, s.token = u.Revision, u.Token
}

// revision is how far a watcher is.
func (s *mixedStream) revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *mixedStream) reached(rev uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("%s: %w", s.got.Name, s.err)
	}
	if s.at < rev {
		return fmt.Errorf("the watch of %s is at %d, want %d", s.got.Name, s.at, rev)
	}
	return nil
}

// finishStreams waits until all watchers have all that was written: a write in every
// group is later than all before it there.
func (m *mixed) finishStreams() {
	m.t.Helper()
	var end uint64
	for _, tags := range m.tags {
		harness.Eventually(m.t, func() error {
			r, err := m.clients[0].Put(m.t.Context(), "end/"+tags[0], nil)
			end = max(end, r.Revision)
			return err
		})
	}
	for _, s := range m.stream.all {
		harness.Eventually(m.t, func() error { return s.reached(cmp.Or(s.until, end)) })
	}
	m.stream.end()
}

func (s *mixedStreams) end() {
	s.cancel()
	s.group.Wait()
}

func (s *mixedStreams) judge(m *mixed, report report) {
	var streams []history.Stream
	events := 0
	for _, w := range s.all {
		if w.err != nil {
			m.t.Errorf("the watch of %s ended: %v", w.got.Name, w.err)
		}
		for _, u := range w.got.Updates {
			events += len(u.Events)
		}
		if w.prefix != ttlPrefix { // judged by its deletions
			streams = append(streams, w.got)
		}
	}
	report("watch", history.CheckWatch(m.writes, streams), len(s.all), " watches, ", events, " events, ", len(m.writes), " writes")
}

// expiries are the deletions that watches say are due to a deadline.
func (s *mixedStreams) expiries(m *mixed) (out []history.Expiry) {
	for _, w := range s.all {
		if w.prefix != ttlPrefix {
			continue
		}
		for _, u := range w.got.Updates {
			for _, ev := range u.Events {
				if ev.Expired {
					at := time.UnixMilli(int64(ev.Revision >> 16))
					out = append(out, history.Expiry{Key: ev.Key, At: int64(at.Sub(m.start))})
				}
			}
		}
	}
	return out
}
