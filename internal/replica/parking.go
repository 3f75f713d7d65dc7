package replica

import (
	"slices"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// parking holds requests that wait behind a prepared transaction, in the order in
// which they came to it. They count with the queue, and go back to where the queue
// is being evaluated once that transaction has ended in log order; then they may
// meet another one. Nothing of them was executed.
//
// What waits at one key is bounded by a part of the queue: a key that is locked all
// the time leaves room for operations on others.
type parking struct {
	cars  []parked
	woken []*Request
	waiting
	keys map[string]waiting // at which something waits
}

// waiting counts what waits.
type waiting struct{ ops, bytes int }

func (w waiting) plus(ops, bytes int) waiting { return waiting{w.ops + ops, w.bytes + bytes} }

// keyShare is the part of the queue that may wait at one key.
const keyShare = 4

type parked struct {
	r      *Request
	holder *format.Prepared
	// key is where it met the lock; "" for a freeze, which waits for all of holder's.
	key string
	waiting
	// asked is when somebody was last told that r waits.
	asked time.Duration
}

// askEvery is how often Blocked is called for a transaction that others wait for.
const askEvery = 100 * time.Millisecond

// parkBehind lets a request wait at a key, if there is room.
func (c *Core) parkBehind(r *Request, holder *format.Prepared, key []byte, now Now) verdict {
	c.tellBlocked(holder)
	p := &c.lead.parking
	ops, bytes := r.cost()
	if here := p.keys[string(key)]; key != nil && here.ops > 0 &&
		(here.ops+ops > c.cfg.MaxQueueOps/keyShare || here.bytes+bytes > c.cfg.MaxQueueBytes/keyShare) {
		r.finish(fault.New(fault.Overloaded, "too many operations wait for a key that a transaction has locked", "group", c.cfg.Group,
			"key", nameOf(key), "waiting", here.ops, "limit", c.cfg.MaxQueueOps/keyShare, "waiting_bytes", here.bytes,
			"limit_bytes", c.cfg.MaxQueueBytes/keyShare).WithRetry(retryHint))
		c.abandon(r)
		return verdictEnded
	}
	p.count(string(key), ops, bytes)
	p.cars = append(p.cars, parked{r: r, holder: holder, key: string(key), waiting: waiting{ops, bytes}, asked: now.Mono})
	return verdictParked
}

// count adds to what waits, or takes away.
func (p *parking) count(key string, ops, bytes int) {
	p.waiting = p.plus(ops, bytes)
	if key == "" {
		return
	}
	if p.keys == nil {
		p.keys = make(map[string]waiting)
	}
	if here := p.keys[key].plus(ops, bytes); here.ops > 0 {
		p.keys[key] = here
	} else {
		delete(p.keys, key)
	}
}

// nameOf is what a client calls a disk key.
func nameOf(key []byte) string {
	_, name, err := keyspace.DecodeDataKey(key)
	invariant.Assert(err == nil, "a locked key %x is no data key: %v", key, err)
	return string(name)
}

func (c *Core) tellBlocked(p *format.Prepared) {
	if f := c.cfg.Blocked; f != nil {
		f(p)
	}
}

// wake lets those go on that wait for a transaction.
func (p *parking) wake(holder *format.Prepared) {
	p.drop(func(car *parked) bool {
		if car.holder != holder {
			return false
		}
		p.woken = append(p.woken, car.r)
		return true
	})
}

// drop forgets those that gone says.
func (p *parking) drop(gone func(*parked) bool) {
	p.cars = slices.DeleteFunc(p.cars, func(car parked) bool {
		if !gone(&car) {
			return false
		}
		p.count(car.key, -car.ops, -car.bytes)
		return true
	})
}

func (p *parking) takeWoken() []*Request {
	woken := p.woken
	p.woken = nil
	return woken
}

// expireParked ends those that waited too long, and tells again of what the others
// wait for.
func (c *Core) expireParked(now time.Duration) {
	p := &c.lead.parking
	p.drop(func(car *parked) bool {
		switch r := car.r; {
		case r.finished:
		case r.late(now):
			r.finish(fault.New(fault.DeadlineExceeded, "the deadline passed while a transaction held keys of the operation"))
		case r.Slots != nil && now > r.Slots.until:
			r.finish(stillPrepared(c.cfg.Group))
		default:
			return false
		}
		c.abandon(car.r)
		return true
	})
	if len(p.cars) == 0 {
		return
	}
	told := make(map[*format.Prepared]bool)
	for i := range p.cars {
		car := &p.cars[i]
		if now-car.asked < askEvery {
			continue
		}
		if car.asked = now; !told[car.holder] {
			told[car.holder] = true
			c.tellBlocked(car.holder)
		}
	}
}

func (p *parking) failAll(err error) {
	for i := range p.cars {
		p.cars[i].r.finish(err)
	}
	for _, r := range p.woken {
		r.finish(err)
	}
	*p = parking{}
}
