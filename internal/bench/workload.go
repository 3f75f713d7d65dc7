package bench

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
)

// poolBytes is how much incompressible data all values are cut from.
const poolBytes = 1 << 20

// pool is shared, read-only random data.
type pool []byte

func newPool(valueSize int, seed uint64) pool {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
	p := make(pool, valueSize+poolBytes)
	_, _ = r.Read(p) // never fails
	return p
}

func poolOf(c *Config) pool { return newPool(c.ValueSize, c.Seed) }

// Keys makes the keys of a run, all of one size: prefix, padding, number. The
// keys of sets are prefix, padding, {number of the set}, number in the set, so
// that a set lies in one group.
type Keys struct {
	pad string
	set int // keys of a set; 0 without sets
}

// NewSetKeys makes keys of size bytes in sets of n.
func NewSetKeys(prefix string, size, n int) Keys {
	return Keys{pad: prefix + strings.Repeat("0", size-len(prefix)-setDigits), set: n}
}

// NewKeys makes keys of size bytes.
func NewKeys(prefix string, size int) Keys {
	return Keys{pad: prefix + strings.Repeat("0", size-len(prefix)-keyDigits)}
}

// Key returns key i.
func (k Keys) Key(i int) string {
	var room [64]byte // for most keys; a longer one takes its own
	b := append(room[:0], k.pad...)
	if k.set == 0 {
		return string(appendDigits(b, i, keyDigits))
	}
	b = appendDigits(append(b, '{'), i/k.set, keyDigits)
	return string(appendDigits(append(b, '}'), i%k.set, memberDigits))
}

func appendDigits(b []byte, n, width int) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], int64(n), 10)
	for range width - len(text) {
		b = append(b, '0')
	}
	return append(b, text...)
}

// worker makes the operations of one client.
type worker struct {
	cfg    *Config
	keys   Keys
	pool   pool
	rand   *rand.Rand
	zipf   *rand.Zipf
	stride uint64 // spreads hot ranks over the key space
	batchK []string
	batchV [][]byte
	taken  numbers
	groups []int // all of Config.byGroup, in any order
}

// spread is prime and larger than maxKeys, so that it has no factor in common
// with any number of keys: rank*spread mod keys visits every key once.
const spread = 2_654_435_761

func newWorker(cfg *Config, p pool, client int) *worker {
	w := &worker{
		cfg: cfg, keys: cfg.keyMaker(), pool: p,
		rand: rand.New(rand.NewPCG(cfg.Seed, uint64(client))), stride: spread,
	}
	if cfg.Zipf > 0 {
		w.zipf = rand.NewZipf(w.rand, cfg.Zipf, 1, uint64(cfg.choices()-1))
	}
	if cfg.isBatch() {
		w.batchK, w.batchV = make([]string, cfg.Batch), make([][]byte, cfg.Batch)
		w.taken = newNumbers(cfg.Batch)
	}
	for i := range cfg.byGroup {
		w.groups = append(w.groups, i)
	}
	return w
}

// index is that of a key, or of a set.
func (w *worker) index() int {
	if w.zipf == nil {
		return w.rand.IntN(w.cfg.choices())
	}
	return int(w.zipf.Uint64() * w.stride % uint64(w.cfg.choices()))
}

func (w *worker) key() string { return w.keys.Key(w.index()) }

func (w *worker) value() []byte {
	from := w.rand.IntN(poolBytes)
	return w.pool[from : from+w.cfg.ValueSize : from+w.cfg.ValueSize]
}

// do runs one operation and returns its kind and how many keys it touched.
func (w *worker) do(ctx context.Context, c Client) (kind string, keys int, err error) {
	switch w.cfg.Workload {
	case WorkGet:
		return WorkGet, 1, c.Get(ctx, w.key())
	case WorkMixed:
		if w.rand.Float64() < w.cfg.ReadRatio {
			return WorkGet, 1, c.Get(ctx, w.key())
		}
	case WorkList:
		n, err := c.List(ctx, w.cfg.Prefix, w.listStart(), w.cfg.ListLimit)
		return WorkList, n, err
	case WorkBatchPut:
		w.distinct()
		for i := range w.batchV {
			w.batchV[i] = w.value()
		}
		return WorkBatchPut, len(w.batchK), c.BatchPut(ctx, w.batchK, w.batchV)
	case WorkAtomic:
		w.oneSet()
		return WorkAtomic, len(w.batchK), atomicPut(ctx, c, w.batchK, w.batchV)
	case WorkTxn:
		w.inGroups()
		return WorkTxn, len(w.batchK), transaction(ctx, c, w.batchK, w.batchV)
	case WorkBatchGet:
		w.distinct()
		return WorkBatchGet, len(w.batchK), c.BatchGet(ctx, w.batchK)
	}
	return WorkPut, 1, c.Put(ctx, w.key(), w.value())
}

// distinct fills the batch with different keys (a store may refuse a batch
// that writes one twice): a key drawn again becomes the next free one.
func (w *worker) distinct() {
	w.taken.clear()
	for i := range w.batchK {
		n := w.index()
		for !w.taken.add(n) {
			n = (n + 1) % w.cfg.Keys
		}
		w.batchK[i] = w.keys.Key(n)
	}
}

// oneSet fills the batch with the keys of one set.
func (w *worker) oneSet() {
	first := w.index() * w.cfg.Batch
	for i := range w.batchK {
		w.batchK[i], w.batchV[i] = w.keys.Key(first+i), w.value()
	}
}

func atomicPut(ctx context.Context, c Client, keys []string, values [][]byte) error {
	if a, ok := c.(AtomicClient); ok {
		return a.AtomicPut(ctx, keys, values)
	}
	return c.BatchPut(ctx, keys, values)
}

// listStart leaves room for a whole page behind it.
func (w *worker) listStart() string {
	return w.keys.Key(w.rand.IntN(max(w.cfg.Keys-w.cfg.ListLimit, 0) + 1))
}
