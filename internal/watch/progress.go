package watch

import "time"

// marks is the progress that a stream is told: of each of its watches once per
// Options.ProgressEvery, spread over the ticks of that time, so that many watches
// to which nothing happens do not hold up the events of the others.
type marks struct {
	began time.Duration // of the present round, on the hub's clock
	// due are the watches that the round has still to come to, share how many are
	// told at a tick.
	due   []dueMarks
	share int
}

type dueMarks struct {
	src     *source
	watches []*watch
}

// fewMarks are told at once.
const fewMarks = 500

// mark tells how far live watches of the stream were sent everything. What is
// queued before it comes before it.
func (s *Stream) mark(now time.Duration) {
	for _, d := range s.nextMarks(now) {
		d.src.markAll(s, d.watches)
	}
}

// nextMarks takes those that are due.
func (s *Stream) nextMarks(now time.Duration) (out []dueMarks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.marks
	if s.bytes > s.hub.o.StreamBytes/2 {
		return nil
	}
	if len(m.due) == 0 {
		if now-m.began < s.hub.o.ProgressEvery {
			return nil
		}
		m.begin(now, s.watches, int(s.hub.o.ProgressEvery/tickEvery))
	}
	for room := m.share; room > 0 && len(m.due) > 0; {
		d := &m.due[0]
		n := min(room, len(d.watches))
		out = append(out, dueMarks{d.src, d.watches[:n]})
		room -= n
		if d.watches = d.watches[n:]; len(d.watches) == 0 {
			m.due = m.due[1:]
		}
	}
	return out
}

// begin begins a round over so many ticks.
func (m *marks) begin(now time.Duration, watches map[uint64]*watch, ticks int) {
	bySource := make(map[*source][]*watch)
	for _, w := range watches {
		bySource[w.src] = append(bySource[w.src], w)
	}
	m.began, m.due, m.share = now, nil, max(fewMarks, len(watches)/max(1, ticks)+1)
	for src, ws := range bySource {
		m.due = append(m.due, dueMarks{src, ws})
	}
}

// markAll marks those of a stream's watches that are live here.
func (src *source) markAll(s *Stream, ws []*watch) {
	src.mu.Lock()
	defer src.mu.Unlock()
	n := &note{rev: src.frontier}
	s.mu.Lock()
	for _, w := range ws {
		if w.src == src && w.state == live && !w.closed.Load() && w.at.rev <= src.frontier {
			n.marked = append(n.marked, w)
		}
	}
	s.mu.Unlock()
	if len(n.marked) > 0 {
		s.tell(n)
	}
}
