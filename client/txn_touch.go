package client

// Touch changes a key's deadline at the commit, as Client.Touch does: by WithTTL or
// WithExpiry, or by Persist. A key that is not there then, or does not meet a
// condition among the options, ends the transaction with ErrConditionFailed, and
// nothing was written. Of a key that the transaction has put, it changes the put; it
// takes no condition there.
//
// Get of a key that was touched reads it, with the new deadline, which is not known
// before the commit where it is WithTTL's.
func (t *Tx) Touch(key string, opts ...TouchOption) {
	o := OpTouch(key, opts...)
	touch := &o.touch.item
	err := t.c.checkTouch(touch)
	if i, ok := t.writes[t.keyOf(&o)]; ok && err == nil && t.ops[i].kind != opTouch {
		err = t.ops[i].retouch(touch)
	} else if err == nil {
		t.write(o)
	}
	if t.err == nil {
		t.err = err
	}
}

// retouch changes the deadline that a write gives its key.
func (o *Op) retouch(touch *touchItem) error {
	switch {
	case o.kind == opDelete:
		return newError(CodeConditionFailed, "the transaction deletes the key before it touches it", "key", quoteKey(o.key))
	case !touch.condition.isZero():
		return newError(CodeInvalidArgument, "a touch of a key that the transaction puts takes no condition", "key", quoteKey(o.key))
	}
	o.put.item.TTL, o.put.item.ExpiresAt = touch.ttl, touch.expiresAt
	return nil
}

// touched is a record with the deadline that a touch gives it.
func (i *touchItem) touched(rec Record) Record {
	rec.ExpiresAt, rec.Version, rec.Revision = i.expiresAt, 0, 0
	return rec
}
