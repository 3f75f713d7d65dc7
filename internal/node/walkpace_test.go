package node

import (
	"context"
	"testing"
	"time"

	"kvstore/internal/mvcc"
)

// walkClock is a walkPace over runs and a clock of the test's; a pause lets its
// time pass and the runs that come with it.
type walkClock struct {
	*walkPace
	t                   *testing.T
	at                  time.Time
	small, large        int64
	perSecond           int64 // bytes that arrive in large runs
	fullAt              int64 // bytes at which flushes wait, and nothing arrives
	period              int64 // bytes after which the next walk is due
	lists               bool
	pauses              int
	syncs, longestPause time.Duration
}

func newWalkClock(t *testing.T) *walkClock {
	c := &walkClock{t: t, at: time.Unix(1e9, 0), period: walkTotal}
	c.walkPace = newWalkPace(c)
	c.store, c.now = c, func() time.Time { return c.at }
	c.pause = func(_ context.Context, d time.Duration) error {
		c.pass(d)
		c.pauses++
		c.longestPause = max(c.longestPause, d)
		return nil
	}
	return c
}

func (c *walkClock) pass(d time.Duration) {
	c.at = c.at.Add(d)
	if !c.Urgent(mvcc.WalkMove) {
		c.large += c.perSecond * d.Nanoseconds() / 1e9
	}
}

func (c *walkClock) Urgent(mvcc.Walk) bool { return c.fullAt > 0 && c.large >= c.fullAt }

func (c *walkClock) ListsWait() bool { return c.lists }

func (c *walkClock) RunsBytes() mvcc.RunBytes { return mvcc.RunBytes{Small: c.small, Middle: c.large} }

func (c *walkClock) Sync() error { c.syncs++; return nil }

const (
	walkTotal = 1 << 30
	walkSteps = 1 << 12
)

// walk makes a walk of which each step takes work, and returns how long it was.
func (c *walkClock) walk(number uint64, what mvcc.Walk, work time.Duration) time.Duration {
	c.t.Helper()
	began := c.at
	for step := int64(1); step <= walkSteps; step++ {
		c.pass(work)
		moved := step * (walkTotal / walkSteps)
		p := mvcc.MoveProgress{Walk: number, What: what, Moved: moved, Total: walkTotal, Period: c.period, Engine: moved}
		if err := c.between(context.Background(), p); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.at.Sub(began)
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s took %v, want %v to %v", what, got, least, most)
	}
}

// Where nothing arrives, a walk takes its time, the first as well as the next.
func TestQuietWalksTakeTheirTime(t *testing.T) {
	c := newWalkClock(t)
	for walk := uint64(1); walk <= 6; walk += 3 {
		within(t, "a merge", c.walk(walk, mvcc.WalkMerge, time.Millisecond), mergeTime, mergeTime+time.Second)
		within(t, "a merge of large runs", c.walk(walk+1, mvcc.WalkMergeLarge, time.Millisecond), largeTime, largeTime+time.Second)
		within(t, "a move", c.walk(walk+2, mvcc.WalkMove, time.Millisecond), moveTime, moveTime+time.Second)
	}
	if want := time.Duration(6 * walkTotal / flushSyncBytes); c.syncs != want {
		t.Errorf("%d syncs, want %d", c.syncs, want)
	}
}

// Where much arrives, a walk is over before as much has come as it takes.
func TestWalksKeepUpWithWhatArrives(t *testing.T) {
	c := newWalkClock(t)
	c.perSecond = walkTotal / 100
	within(t, "a move", c.walk(1, mvcc.WalkMove, time.Millisecond), 70*time.Second, 90*time.Second)
}

// A merge that rewrites much more than what came since the last one is over before as
// much has come again.
func TestMergesOfLargeRunsKeepUp(t *testing.T) {
	c := newWalkClock(t)
	c.period = walkTotal / 3
	c.perSecond = c.period / 100
	within(t, "a merge of large runs", c.walk(1, mvcc.WalkMergeLarge, time.Millisecond), 70*time.Second, 90*time.Second)
}

// A walk that is slower than what arrives rests less and less, and no more when as
// much arrived as it takes.
func TestLateWalksRestLess(t *testing.T) {
	c := newWalkClock(t)
	const work = 10 * time.Millisecond
	c.perSecond = walkTotal / 10
	took := c.walk(1, mvcc.WalkMove, work)
	// Of the ten seconds in which as much arrives, it works a quarter of the first
	// five and half of the others.
	within(t, "a late move", took, walkSteps*work+6*time.Second, walkSteps*work+7*time.Second)
	if want := int(5*time.Second/(4*work) + 5*time.Second/(2*work)); c.pauses < want-5 || c.pauses > want+5 {
		t.Errorf("%d pauses, want %d", c.pauses, want)
	}
	if c.longestPause != restLong*work {
		t.Errorf("the longest pause is %v, want %v", c.longestPause, restLong*work)
	}
}

// A walk for which flushes wait does not rest, however little arrived.
func TestWalksDoNotRestWhenFlushesWait(t *testing.T) {
	c := newWalkClock(t)
	c.perSecond, c.fullAt = walkTotal/480, walkTotal/2
	within(t, "a move that flushes wait for in the middle", c.walk(1, mvcc.WalkMove, time.Millisecond), 4*time.Minute, 4*time.Minute+5*time.Second)
}

// A merge that lists wait for works a quarter of the time, though nothing arrives; others
// do not care.
func TestMergesThatListsWaitFor(t *testing.T) {
	c := newWalkClock(t)
	c.lists = true
	const work = walkSteps * time.Millisecond
	within(t, "a merge", c.walk(1, mvcc.WalkMerge, time.Millisecond), 4*work-time.Second, 4*work+time.Second)
	within(t, "a merge of large runs", c.walk(2, mvcc.WalkMergeLarge, time.Millisecond), largeTime, largeTime+time.Second)
}
