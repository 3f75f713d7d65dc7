package mover

import (
	"cmp"
	"slices"
	"time"

	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// progress is what this node knows of a move that it drives.
type progress struct {
	now   router.MoveProgress
	began time.Duration // when this node began to read pages
	first uint64        // bytes that were there before
}

// phases are the names of what happens, for operators; a step that is short has
// the name of what it belongs to.
var phases = map[Kind]string{
	Found: "beginning", Begin: "beginning", Ask: "copying", Copy: "copying", Tail: "catching up",
	Freeze: "handing over", Ready: "handing over", Leave: "handing over", Accept: "handing over",
	AbortSender: "being undone", AbortOwn: "being undone", Record: "being recorded", Unlist: "being undone",
}

// Progress is how far the moves are that this node drives, by receiver.
func (m *Mover) Progress() []router.MoveProgress {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.o.Clock.Mono()
	out := make([]router.MoveProgress, 0, len(m.progress))
	for _, p := range m.progress {
		out = append(out, p.at(now))
	}
	slices.SortFunc(out, func(a, b router.MoveProgress) int { return cmp.Compare(a.To, b.To) })
	return out
}

// at adds what follows from the time.
func (p *progress) at(now time.Duration) router.MoveProgress {
	out := p.now
	out.Total = max(out.Total, out.Bytes)
	if took := (now - p.began).Seconds(); p.began != 0 && took > 0 {
		out.Rate = uint64(float64(out.Bytes-p.first) / took)
	}
	if out.Rate > 0 {
		out.ETA = time.Duration(float64(out.Total-out.Bytes) / float64(out.Rate) * float64(time.Second))
	}
	return out
}

// report notes what is done next.
func (r *receipt) report(v *View, a Action) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if a.Kind == Finished {
		delete(r.m.progress, r.group)
		return
	}
	p := r.m.progress[r.group]
	if p == nil || p.now.ID != v.Move.ID {
		p = &progress{now: router.MoveProgress{ID: v.Move.ID, From: v.Move.From, To: v.Move.To, Slots: v.Move.Slots}}
		if in := v.Own; in != nil && in.In != nil {
			p.first, p.now.Bytes = in.In.Bytes, in.In.Bytes
		}
		r.m.progress[r.group] = p
	}
	p.now.Phase = phases[a.Kind]
	if a.Kind == Wait {
		p.now.Phase = "waiting: " + a.Why
	}
	if s := v.Sender; s != nil && r.at.Bytes > 0 {
		owned := s.Owned.With(&v.Move.Slots)
		p.now.Total = uint64(float64(r.at.Bytes) * float64(v.Move.Slots.Count()) / float64(owned.Count()))
	}
}

// pageRead counts a page, also what of it was here already.
func (m *Mover) pageRead(g keyspace.GroupID, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.progress[g]
	if p == nil {
		return
	}
	if p.began == 0 {
		p.began = m.o.Clock.Mono()
	}
	p.now.Bytes += uint64(bytes)
}
