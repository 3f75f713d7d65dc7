package watch_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/watch"
	"kvstore/internal/watch/watchtest"
)

// keyOf returns a key of a group.
func keyOf(n *watchtest.Node, g keyspace.GroupID) string {
	for i := 0; ; i++ {
		key := fmt.Sprintf("key%d", i)
		if at, _ := n.GroupOf(keyspace.SlotOf(keyspace.DefaultNamespace, key)); at == g {
			return key
		}
	}
}

// lagging is a host on which one group has not come further than a revision.
type lagging struct {
	watch.Host
	group keyspace.GroupID
	at    keyspace.Revision
}

func (l lagging) Follow(ctx context.Context, g keyspace.GroupID, wake func()) (watch.Feed, host.FeedPage, error) {
	f, at, err := l.Host.Follow(ctx, g, wake)
	if err == nil && g == l.group {
		at.Settled = l.at
		f = laggingFeed{f, l.at}
	}
	return f, at, err
}

type laggingFeed struct {
	watch.Feed
	at keyspace.Revision
}

func (f laggingFeed) Read(after host.FeedPosition, maxBytes int) host.FeedPage {
	p := f.Feed.Read(after, maxBytes)
	p.Settled = min(p.Settled, f.at)
	return p
}

// TestSourceBeginsWhereItsLastGroupIs: of groups that are opened at different
// revisions, what one wrote before it was opened is the past, also where another
// has not come so far.
func TestSourceBeginsWhereItsLastGroupIs(t *testing.T) {
	n := watchtest.New(t, 2, nil)
	behind := n.Put(keyOf(n, 2), "behind")
	for keyspace.RevisionAt(wall()) <= behind { // the clock of the other group is then ahead
	}
	n.Put(keyOf(n, 1), "ahead")
	h := n.Hub(func(o *watch.Options) { o.Host = lagging{o.Host, 2, behind} })
	l := listen(t, h)
	l.create(&api.WatchCreate{WatchId: 1, AfterRevision: uint64(behind)})
	n.Put(keyOf(n, 1), "later")
	l.until("two events", func() bool { return len(l.got[1]) == 2 })
	if got, want := summary(l.got[1]), keyOf(n, 1)+"=ahead, "+keyOf(n, 1)+"=later"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// blank is a host on which nothing of one group is settled when it is followed.
type blank struct {
	watch.Host
	group keyspace.GroupID
}

func (b blank) Follow(ctx context.Context, g keyspace.GroupID, wake func()) (watch.Feed, host.FeedPage, error) {
	f, at, err := b.Host.Follow(ctx, g, wake)
	if err == nil && g == b.group {
		at.Settled = 0
		f = &blankFeed{Feed: f, wake: wake}
	}
	return f, at, err
}

// blankFeed has nothing at the first look.
type blankFeed struct {
	watch.Feed
	wake   func()
	looked bool
}

func (f *blankFeed) Read(after host.FeedPosition, maxBytes int) host.FeedPage {
	if !f.looked {
		f.looked = true
		f.wake()
		return host.FeedPage{Position: after}
	}
	return f.Feed.Read(after, maxBytes)
}

// TestFollowingAGroupOfWhichNothingIsSettled: a node that follows it elsewhere
// hears which slots it has all the same.
func TestFollowingAGroupOfWhichNothingIsSettled(t *testing.T) {
	n := watchtest.New(t, 2, nil)
	holder := n.Hub(func(o *watch.Options) { o.Host = blank{o.Host, 2} })
	l := listen(t, n.Elsewhere(holder, nil))
	l.create(&api.WatchCreate{WatchId: 1})
	l.until("the watch is open, or is told that slots have no owner", func() bool { return l.created[1] != 0 || l.ended[1] != nil })
	if e := l.ended[1]; e != nil {
		t.Fatalf("the watch ended: %v", e)
	}
	n.Put(keyOf(n, 2), "v")
	l.until("an event", func() bool { return len(l.got[1]) == 1 })
}

func wall() int64 { return time.Now().UnixMilli() }
