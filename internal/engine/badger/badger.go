// Package badger is the engine on disk. It is the only importer of Badger.
//
// What Badger guarantees and what this package adds:
//
//   - Keys are stored with their revision as Badger's version (managed mode);
//     reads name a revision, so Badger's transactions give nothing but a
//     snapshot number.
//   - Badger's batches are not atomic and its unsynced writes are lost in any
//     subset. Both are allowed by the contract of engine.Engine; Sync makes
//     durable what db.Sync does not (see sync.go).
//   - Old versions are dropped by compaction below the discard timestamp, which
//     is the floor, and their values by rewriting value logs (see gc.go).
//   - DropPrefix blocks all writes, StreamWriter wipes the store and Badger's
//     TTL judges by the local clock: none of them is used.
package badger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/engine"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Engine is an open store. Its methods are those of engine.Engine.
type Engine struct {
	db      *badgerdb.DB
	dir     string
	options Options
	few     int // fewWrites, but in tests
	log     *slog.Logger

	sync      syncer
	floor     floor
	sizes     sizes
	ahead     *readahead
	unflushed unflushed

	rewrites atomic.Uint64
	stop     context.CancelFunc // ends what stopped waits for
	stopped  sync.WaitGroup
}

var _ engine.Engine = (*Engine)(nil)

// Open opens or creates the store in dir, which belongs to one process at a
// time. A store that Badger cannot open is fault.Corruption. It starts the
// maintenance goroutine, which Close ends.
func Open(dir string, o Options) (engine.Engine, error) {
	e, err := open(dir, o, maintenanceInterval)
	if err != nil {
		return nil, err // an Engine that is nil, not one that holds a nil pointer
	}
	return e, nil
}

func open(dir string, o Options, maintenance time.Duration) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	settings := badgerOptions(dir, o)
	if err := prepare(dir, settings); err != nil {
		return nil, err
	}
	db, err := openDB(settings)
	if err != nil {
		return nil, fmt.Errorf("open badger in %s: %w", dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Engine{db: db, dir: dir, options: o, few: fewWrites, log: o.Logger, stop: stop}
	e.sync.dir, e.sync.file = dir, syncFile
	e.floor.set = db.SetDiscardTs
	if e.ahead, err = newReadahead(dir, o.Logger); err == nil {
		err = e.unflushed.begin(dir)
	}
	if err == nil {
		err = errors.Join(e.repair(), e.Sync())
	}
	if err != nil {
		stop()
		return nil, errors.Join(err, db.Close())
	}
	e.stopped.Go(func() { e.maintain(ctx, maintenance) })
	if o.ResidentBytes > 0 {
		e.stopped.Go(func() { e.boundResident(ctx, o.ResidentBytes) })
	}
	return e, nil
}

// openDB opens Badger, which panics on some damaged files.
func openDB(o badgerdb.Options) (db *badgerdb.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.New(fault.Corruption, "badger files are damaged", "reason", r)
		}
	}()
	return badgerdb.OpenManaged(o)
}

// Reader returns a reader of everything written so far.
func (e *Engine) Reader() engine.Reader { return &reader{db: e.db} }

// SetFloor moves the revision below which compaction forgets versions.
func (e *Engine) SetFloor(rev keyspace.Revision) { e.floor.raise(rev) }

// Close ends background work and closes Badger, which flushes its memtable.
func (e *Engine) Close() error {
	e.stop()
	e.stopped.Wait()
	if err := e.db.Close(); err != nil {
		return fmt.Errorf("close badger: %w", err)
	}
	return nil
}

// floor is Badger's discard timestamp. It only grows, but for pauses: see
// gc.go.
type floor struct {
	mu     sync.Mutex
	at     keyspace.Revision
	paused bool
	set    func(uint64)
}

func (f *floor) raise(rev keyspace.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rev <= f.at {
		return
	}
	f.at = rev
	if !f.paused {
		f.set(uint64(rev))
	}
}

// pause makes compactions that begin from now on forget nothing.
func (f *floor) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = true
	f.set(0)
}

func (f *floor) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = false
	f.set(uint64(f.at))
}

func (f *floor) get() keyspace.Revision {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}
