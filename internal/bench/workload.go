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

// Keys makes the keys of a run, all of one size: prefix, padding, number.
type Keys struct {
	pad string
}

// NewKeys makes keys of size bytes.
func NewKeys(prefix string, size int) Keys {
	return Keys{prefix + strings.Repeat("0", size-len(prefix)-keyDigits)}
}

// Key returns key i.
func (k Keys) Key(i int) string {
	b := make([]byte, 0, len(k.pad)+keyDigits)
	b = append(b, k.pad...)
	digits := strconv.AppendInt(nil, int64(i), 10)
	for range keyDigits - len(digits) {
		b = append(b, '0')
	}
	return string(append(b, digits...))
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
	taken  map[int]bool
}

// spread is prime and larger than maxKeys, so that it has no factor in common
// with any number of keys: rank*spread mod keys visits every key once.
const spread = 2_654_435_761

func newWorker(cfg *Config, p pool, client int) *worker {
	w := &worker{
		cfg: cfg, keys: NewKeys(cfg.Prefix, cfg.KeySize), pool: p,
		rand: rand.New(rand.NewPCG(cfg.Seed, uint64(client))), stride: spread,
	}
	if cfg.Zipf > 0 {
		w.zipf = rand.NewZipf(w.rand, cfg.Zipf, 1, uint64(cfg.Keys-1))
	}
	if cfg.isBatch() {
		w.batchK, w.batchV = make([]string, cfg.Batch), make([][]byte, cfg.Batch)
		w.taken = make(map[int]bool, cfg.Batch)
	}
	return w
}

func (w *worker) index() int {
	if w.zipf == nil {
		return w.rand.IntN(w.cfg.Keys)
	}
	return int(w.zipf.Uint64() * w.stride % uint64(w.cfg.Keys))
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
	case WorkBatchGet:
		w.distinct()
		return WorkBatchGet, len(w.batchK), c.BatchGet(ctx, w.batchK)
	}
	return WorkPut, 1, c.Put(ctx, w.key(), w.value())
}

// distinct fills the batch with different keys (a store may refuse a batch
// that writes one twice): a key drawn again becomes the next free one.
func (w *worker) distinct() {
	clear(w.taken)
	for i := range w.batchK {
		n := w.index()
		for w.taken[n] {
			n = (n + 1) % w.cfg.Keys
		}
		w.taken[n] = true
		w.batchK[i] = w.keys.Key(n)
	}
}

// listStart leaves room for a whole page behind it.
func (w *worker) listStart() string {
	return w.keys.Key(w.rand.IntN(max(w.cfg.Keys-w.cfg.ListLimit, 0) + 1))
}
