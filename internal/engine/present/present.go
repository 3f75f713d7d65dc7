// Package present answers for an engine what it has nothing of.
//
// Most data of a node is in front of the engine, in deltas and runs, and many
// keys that are asked for are nowhere: new ones, and the ids of requests. An engine
// looks into every level for what it does not have, and an iterator costs it more
// than the keys of a short list. So it is known here which instances have ever been
// written; of others there is nothing, and the engine is not asked.
package present

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// instances that the engine may have something of; never changed once published.
type instances map[keyspace.InstanceID]struct{}

// Present is an engine that knows its instances. All that writes to the engine goes
// through it.
type Present struct {
	engine.Engine
	mu    sync.Mutex // orders changes of known
	known atomic.Pointer[instances]
}

// Wrap asks the engine once what it has.
func Wrap(ctx context.Context, e engine.Engine) (*Present, error) {
	there, err := e.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("instances of the engine: %w", err)
	}
	known := make(instances, len(there))
	for _, inst := range there {
		known[inst] = struct{}{}
	}
	p := &Present{Engine: e}
	p.known.Store(&known)
	return p, nil
}

// Write notes the instances before anything of them is there.
func (p *Present) Write(ctx context.Context, writes []engine.Write) error {
	for i := range writes {
		if inst, _, err := keyspace.DecodeInstance(writes[i].Key); err == nil {
			p.note(inst)
		}
	}
	return p.Engine.Write(ctx, writes)
}

func (p *Present) note(inst keyspace.InstanceID) {
	if p.MayHave(inst) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(*p.known.Load())
	next[inst] = struct{}{}
	p.known.Store(&next)
}

// MayHave reports whether there may be something of an instance.
func (p *Present) MayHave(inst keyspace.InstanceID) bool {
	_, there := (*p.known.Load())[inst]
	return there
}

// mayHaveKey reports whether there may be a key.
func (p *Present) mayHaveKey(key []byte) bool {
	inst, _, err := keyspace.DecodeInstance(key)
	return err != nil || p.MayHave(inst)
}

// mayHaveRange reports whether there may be a key in a range.
func (p *Present) mayHaveRange(lower, upper []byte) bool {
	inst, _, err := keyspace.DecodeInstance(lower)
	if err != nil || upper == nil {
		return true
	}
	end := keyspace.PrefixEnd(keyspace.AppendInstance(nil, inst))
	return end == nil || bytes.Compare(upper, end) > 0 || p.MayHave(inst)
}

// Reader must be closed.
func (p *Present) Reader() engine.Reader { return &reader{of: p} }

// reader opens one of the engine when it is first needed: it sees what was written
// before each Get and Iterate, as every reader does.
type reader struct {
	of    *Present
	inner engine.Reader
}

func (r *reader) open() engine.Reader {
	if r.inner == nil {
		r.inner = r.of.Engine.Reader()
	}
	return r.inner
}

func (r *reader) Get(key []byte, at keyspace.Revision) (value []byte, rev keyspace.Revision, ok bool, err error) {
	if !r.of.mayHaveKey(key) {
		return nil, 0, false, nil
	}
	return r.open().Get(key, at)
}

func (r *reader) Iterate(o engine.IterOptions) engine.Iterator {
	if !r.of.mayHaveRange(o.Lower, o.Upper) {
		return nothing{}
	}
	return r.open().Iterate(o)
}

func (r *reader) Close() {
	if r.inner != nil {
		r.inner.Close()
		r.inner = nil
	}
}

// nothing is an iterator over no key.
type nothing struct{}

func (nothing) Seek([]byte)                 {}
func (nothing) Valid() bool                 { return false }
func (nothing) Next()                       {}
func (nothing) Key() []byte                 { return nil }
func (nothing) Revision() keyspace.Revision { return 0 }
func (nothing) Value() ([]byte, error)      { return nil, nil }
func (nothing) Deleted() bool               { return false }
func (nothing) Err() error                  { return nil }
func (nothing) Close()                      {}
