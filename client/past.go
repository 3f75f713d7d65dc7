package client

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
)

// moment is which past a read asks for; the zero value is now.
type moment struct {
	revision uint64
	agoMs    int64 // by the clock of the node that is asked
	err      error
}

// PastOption lets a read see what was current earlier, inside the history window.
// Below it the read is refused with ErrOutOfRange, whose details name the floor;
// so is a moment in the future.
type PastOption interface {
	GetOption
	ListOption
}

type pastOption moment

func (o pastOption) applyGet(c *readCall)      { c.at = moment(o) }
func (o pastOption) applyBatchGet(c *readCall) { c.at = moment(o) }
func (o pastOption) applyList(c *listCall)     { c.at = moment(o) }

// AtRevision reads what was current at a revision: that of a write, of another
// read, or of a page. A BatchGet then reads all its keys at one.
func AtRevision(r uint64) interface {
	PastOption
	BatchGetOption
} {
	return pastOption{revision: r}
}

// AtTime reads what was current at the end of a time's millisecond, by the clocks
// of the cluster.
func AtTime(t time.Time) interface {
	PastOption
	BatchGetOption
} {
	ms := t.UnixMilli()
	if ms <= 0 || ms >= 1<<48-1 {
		return pastOption{err: newError(CodeInvalidArgument, "the time cannot be that of a revision", "actual", t.UTC())}
	}
	return pastOption{revision: uint64(ms+1)<<16 - 1}
}

// Ago reads what was current a while ago, by the clock of the node that is asked.
func Ago(d time.Duration) PastOption {
	if d < time.Millisecond {
		return pastOption{err: newError(CodeInvalidArgument, "Ago takes a millisecond or more", "actual", d)}
	}
	return pastOption{agoMs: d.Milliseconds()}
}

// served holds an answer's revision to what was asked for: nodes of versions that
// do not know the request answer with the present.
func (m *moment) served(revision uint64) error {
	const endOfMs = 0xffff
	if m.revision != 0 && revision != m.revision || m.agoMs != 0 && revision&endOfMs != endOfMs {
		return newError(CodeUnsupported, "the node that answered cannot read the past so", "revision", m.revision, "served", revision)
	}
	return nil
}

// readRevision is that of an encoded BatchGetResponse.
func readRevision(b []byte) (rev uint64) {
	const fieldReadRevision protowire.Number = 50
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return 0
		}
		if f.number == fieldReadRevision {
			rev = f.num
		}
		b = rest
	}
	return rev
}

// KeyVersion is what a key was from Record.Revision on.
type KeyVersion struct {
	// Record of a deletion has Key, Revision and UpdatedAt.
	Record  Record
	Deleted bool
	// Reason of a deletion: deleted or expired.
	Reason string
}

// History yields the versions of a key inside the history window, newest first; the
// last one is what was current when the window began. Of the options KeysOnly,
// InNamespace and AtRevision have a meaning: what was written later is left out. An
// error is yielded once and ends it. Config.Timeout bounds each page.
func (c *Client) History(ctx context.Context, key string, opts ...GetOption) iter.Seq2[KeyVersion, error] {
	call := readCall{namespace: c.cfg.Namespace}
	for _, opt := range opts {
		opt.applyGet(&call)
	}
	return func(yield func(KeyVersion, error) bool) {
		if err := c.checkHistory(key, &call); err != nil {
			yield(KeyVersion{}, err)
			return
		}
		q := &api.HistoryRequest{Namespace: call.namespace, Key: key, KeysOnly: call.keysOnly, UntilRevision: call.at.revision}
		for {
			page, err := unary(ctx, c, readUnary, q, kvClient.History)
			if err != nil {
				yield(KeyVersion{}, err)
				return
			}
			for _, m := range page.GetVersions() {
				v, err := versionFromAPI(m, call.keysOnly)
				if !yield(v, err) || err != nil {
					return
				}
			}
			if q.UntilRevision = page.GetNextRevision(); q.UntilRevision == 0 {
				return
			}
		}
	}
}

func (c *Client) checkHistory(key string, call *readCall) error {
	if call.consistency != Linearizable || call.at.agoMs != 0 {
		return newError(CodeInvalidArgument, "a history takes neither a staleness nor Ago", "key", quoteKey(key))
	}
	if call.at.err != nil {
		return call.at.err
	}
	return c.checkKey(key)
}

func versionFromAPI(m *api.KeyVersion, keysOnly bool) (KeyVersion, error) {
	v := KeyVersion{Record: recordFromAPI(m.GetRecord()), Deleted: m.GetDeleted(), Reason: m.GetReason()}
	if v.Deleted {
		return v, nil
	}
	return v, v.Record.verify(keysOnly)
}
