package raftlog

import (
	"sync"

	"kvstore/internal/env"
)

// preparer makes the next segment ahead of need and removes the ones that are
// not needed any more, on its goroutine or, inline, on the caller's. Its
// methods belong to the log's goroutine.
type preparer struct {
	fs     env.FS
	dir    string
	inline bool
	// onRemove is told the outcome of each removal.
	onRemove func(*segment, error)

	spare *segment
	// waiting: a segment was asked of the goroutine and has not come back.
	waiting bool
	results chan prepared

	// stuck: a removal failed. Later segments stay too, for the next Open:
	// what is on disk is always the newest part of the log without gaps.
	stuck bool

	mu   sync.Mutex
	jobs []job // guarded by mu; at most one preparation and the segments of the log
	wake chan struct{}
	done chan struct{}
}

type prepared struct {
	segment *segment
	err     error
}

// job removes a segment or prepares one.
type job struct {
	remove       *segment
	number, salt uint64
	size         int64
}

func newPreparer(fs env.FS, dir string, inline bool, onRemove func(*segment, error)) *preparer {
	p := &preparer{fs: fs, dir: dir, inline: inline, onRemove: onRemove}
	if !inline {
		p.results = make(chan prepared, 1)
		p.wake = make(chan struct{}, 1)
		p.done = make(chan struct{})
		go p.run()
	}
	return p
}

func (p *preparer) run() {
	defer close(p.done)
	for range p.wake {
		for {
			j, ok := p.next()
			if !ok {
				break
			}
			p.do(j)
		}
	}
}

func (p *preparer) next() (job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) == 0 {
		return job{}, false
	}
	j := p.jobs[0]
	p.jobs = p.jobs[1:]
	return j, true
}

func (p *preparer) do(j job) {
	if j.remove != nil {
		p.doRemove(j.remove)
		return
	}
	s, err := prepareSegment(p.fs, p.dir, j.number, j.salt, j.size)
	p.results <- prepared{s, err}
}

func (p *preparer) doRemove(s *segment) {
	if p.stuck {
		p.onRemove(s, s.file.Close())
		return
	}
	err := removeSegment(p.fs, p.dir, s)
	p.stuck = err != nil
	p.onRemove(s, err)
}

func (p *preparer) submit(j job) {
	p.mu.Lock()
	p.jobs = append(p.jobs, j)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// begin starts to prepare a segment unless there is one already or one under
// way. Inline, an error is returned; otherwise it comes from poll or take.
func (p *preparer) begin(number, salt uint64, size int64) error {
	if p.spare != nil || p.waiting {
		return nil
	}
	if p.inline {
		var err error
		p.spare, err = prepareSegment(p.fs, p.dir, number, salt, size)
		return err
	}
	p.waiting = true
	p.submit(job{number: number, salt: salt, size: size})
	return nil
}

// poll takes a finished preparation in.
func (p *preparer) poll() error {
	if !p.waiting {
		return nil
	}
	select {
	case r := <-p.results:
		p.waiting = false
		p.spare = r.segment
		return r.err
	default:
		return nil
	}
}

// wait is poll that waits for the preparation under way, if any.
func (p *preparer) wait() error {
	if !p.waiting {
		return nil
	}
	r := <-p.results
	p.waiting = false
	p.spare = r.segment
	return r.err
}

// remove deletes a segment, in the order of the calls.
func (p *preparer) remove(s *segment) {
	if p.inline {
		p.doRemove(s)
		return
	}
	p.submit(job{remove: s})
}

// close finishes what was submitted and ends the goroutine.
func (p *preparer) close() {
	if !p.inline {
		close(p.wake)
		<-p.done
		_ = p.poll()
	}
	if p.spare != nil {
		_ = p.spare.file.Close() // durable already; nothing was written since
		p.spare = nil
	}
}
