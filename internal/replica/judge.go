package replica

import (
	"bytes"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// current is the newest version of a key in log order.
type current struct {
	header format.Header
	// value is the encoded record when it is in memory.
	value []byte
	fetch *Fetched
}

// maxKeptSeen bounds the scratch that is kept between evaluations.
const maxKeptSeen = 256

// currents is room for the versions of n keys, until the request that is evaluated
// was judged.
func (c *Core) currents(n int) []current {
	c.seen = slices.Grow(c.seen[:0], n)[:n]
	return c.seen
}

// forgetSeen lets go of what a request's keys refer to.
func (c *Core) forgetSeen() {
	if clear(c.seen); cap(c.seen) > maxKeptSeen {
		c.seen = nil
	}
	c.seen = c.seen[:0]
}

// look finds the newest version: that of the prefetch if nobody wrote the key since,
// else overlay, then deltas, then the prefetch if no later write can have been missed.
// ok is false when it must be fetched again.
func (c *Core) look(key []byte, f *Fetched) (cur current, ok bool) {
	if c.stands(key, f) {
		return current{header: f.Header, value: f.Record, fetch: f}, true
	}
	if w := c.lead.overlay.find(key); w != nil {
		if w.del {
			return current{}, true
		}
		return c.decodeCurrent(w.value, w.rev, f)
	}
	if value, rev, del, found := c.mem.Latest(c.instance, key); found {
		if del {
			return current{}, true
		}
		return c.decodeCurrent(value, rev, f)
	}
	if !f.Valid || f.Instance != c.instance || f.Delta < c.mem.Oldest() {
		return current{}, false
	}
	return current{header: f.Header, value: f.Record, fetch: f}, true
}

func (c *Core) decodeCurrent(value []byte, rev keyspace.Revision, f *Fetched) (current, bool) {
	h, err := format.DecodeHeader(value, rev)
	invariant.Assert(err == nil, "group %d: own record at %v does not decode: %v", c.cfg.Group, rev, err)
	return current{header: h, value: value, fetch: f}, true
}

// judge checks an operation's conditions. known is false when the value must
// be fetched to compare it.
func (c *Core) judge(op *Op, cur *current, nowMilli int64) (known bool, err error) {
	cond, h := &op.Condition, &cur.header
	exists := h.Exists(nowMilli)
	switch {
	case (cond.MustExist || op.Touch) && !exists:
		return true, conditionFailed(op, "must_exist", "present", "absent")
	case cond.MustNotExist && exists:
		return true, conditionFailed(op, "must_not_exist", "absent", "present")
	}
	if cond.Version != nil {
		var actual uint64
		if exists {
			actual = h.Version
		}
		if actual != *cond.Version {
			return true, conditionFailed(op, "version_match", *cond.Version, actual)
		}
	}
	if cond.Revision != nil {
		var actual uint64
		if exists {
			actual = uint64(h.Revision)
		}
		if actual != *cond.Revision {
			return true, conditionFailed(op, "revision_match", *cond.Revision, actual)
		}
	}
	if cond.Created != nil {
		var actual uint64
		if exists {
			actual = uint64(h.Created)
		}
		if actual != *cond.Created {
			return true, conditionFailed(op, "created_match", *cond.Created, actual)
		}
	}
	if cond.Lease != nil {
		actual := ""
		if exists {
			actual = h.Lease
		}
		if actual != *cond.Lease {
			return true, conditionFailed(op, "lease_match", *cond.Lease, actual)
		}
	}
	if op.NeedsRecord() && cur.value == nil {
		return false, nil
	}
	if cond.HasValueEquals {
		return judgeValue(op, cur, exists)
	}
	return true, nil
}

func judgeValue(op *Op, cur *current, exists bool) (known bool, err error) {
	want := op.Condition.ValueEquals
	h := &cur.header
	if !exists || h.Size != uint64(len(want)) {
		return true, conditionFailed(op, "value_equals", len(want), h.Size)
	}
	equal := false
	switch {
	case cur.value != nil && h.Flags&format.FlagChunked == 0:
		rec, err := format.DecodeRecord(cur.value, h.Revision)
		invariant.Assert(err == nil, "own record at %v does not decode: %v", h.Revision, err)
		equal = bytes.Equal(rec.Value, want)
	case cur.fetch.Valid && cur.fetch.Header.Revision == h.Revision:
		equal = cur.fetch.Equal
	default:
		return false, nil
	}
	if !equal {
		return true, conditionFailed(op, "value_equals", "given value", "another value of the same size")
	}
	return true, nil
}

func conditionFailed(op *Op, condition string, want, actual any) error {
	return fault.New(fault.ConditionFailed, "a condition of the write does not hold",
		"key", op.Key, "condition", condition, "want", want, "actual", actual)
}
