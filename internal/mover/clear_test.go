package mover

import (
	"testing"
	"time"

	"kvstore/internal/format"
)

// TestNextOut goes through what a group that gives slots away does by itself.
func TestNextOut(t *testing.T) {
	out := func(left bool) *format.SlotState {
		return &format.SlotState{Out: &format.SlotsOut{ID: 5, To: 3, Slots: moved, Left: left}}
	}
	known := &Metadata{Known: true, Owned: moved, Next: 6, Listed: map[format.MoveID]bool{}}
	listed := &Metadata{Known: true, Next: 6, Listed: map[format.MoveID]bool{5: true}}
	older := &Metadata{Known: true, Next: 5, Listed: map[format.MoveID]bool{}}
	end := OutAction{Move: 5, Peer: 3, Slots: moved}
	with := func(k OutKind) OutAction { a := end; a.Kind = k; return a }
	for _, c := range []struct {
		name string
		s    *format.SlotState
		m    *Metadata
		want OutAction
	}{
		{"no layout, no record", nil, &Metadata{}, OutAction{}},
		{"no layout", nil, known, OutAction{Kind: OutFound, Slots: moved}},
		{"nothing under way", &format.SlotState{}, known, OutAction{}},
		{"under way", out(false), listed, OutAction{}},
		{"under way, the record is older", out(false), older, OutAction{}},
		{"ended elsewhere", out(false), known, with(OutAbort)},
		{"left, not recorded", out(true), listed, OutAction{}},
		{"left, the record is older", out(true), older, OutAction{}},
		{"left and recorded", out(true), known, with(OutForget)},
		{"purging", &format.SlotState{Purging: true}, known, OutAction{Kind: OutPurge}},
		{"purging, and another move left", &format.SlotState{Purging: true, Out: out(true).Out}, known, with(OutForget)},
	} {
		if got := NextOut(c.s, c.m); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// handClock is set by hand.
type handClock struct{ mono time.Duration }

func (c *handClock) Wall() int64         { return 0 }
func (c *handClock) Mono() time.Duration { return c.mono }

// TestPacer bounds what is read per second; what was not read in time is lost but
// for a burst.
func TestPacer(t *testing.T) {
	clock := &handClock{mono: time.Hour}
	p := pacer{clock: clock}
	if d := p.take(1 << 30); d != 0 {
		t.Fatalf("without a rate: %v", d)
	}
	p.set(1000)
	for _, step := range []struct {
		pass  time.Duration
		bytes int
		want  time.Duration
	}{
		{0, 100, 0}, // the burst
		{0, 500, 500 * time.Millisecond},
		{200 * time.Millisecond, 100, 400 * time.Millisecond},
		{400 * time.Millisecond, 0, 0},
		{time.Hour, 300, 200 * time.Millisecond},
	} {
		clock.mono += step.pass
		if d := p.take(step.bytes); d != step.want {
			t.Errorf("after %v, %d bytes: %v, want %v", step.pass, step.bytes, d, step.want)
		}
	}
}
