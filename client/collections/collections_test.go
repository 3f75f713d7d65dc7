package collections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/client/collections"
	"kvstore/internal/ctl/memserver"
)

func connect(t *testing.T) (*memserver.Server, *client.Client) {
	t.Helper()
	s := memserver.Start(t)
	return s, dial(t, s)
}

func dial(t *testing.T, s *memserver.Server) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), client.Config{Endpoints: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

type person struct {
	Name string `json:"name"`
	Age  int    `json:"age"`
}

func TestDictionary(t *testing.T) {
	s, c := connect(t)
	ctx := t.Context()
	d := must[*collections.Dictionary[string, person]](t)(collections.NewDictionary[string, person](c, "people"))
	if _, ok, err := d.Get(ctx, "ann"); ok || err != nil {
		t.Fatalf("of an empty one: %v, %v", ok, err)
	}
	for _, want := range []bool{true, false} {
		if added, err := d.TryAdd(ctx, "ann", person{"Ann", 30}); err != nil || added != want {
			t.Fatalf("added %v, %v", added, err)
		}
	}
	if err := d.Set(ctx, "bob", person{"Bob", 40}); err != nil {
		t.Fatal(err)
	}
	got, err := d.Update(ctx, "ann", func(old person, exists bool) (person, error) {
		if !exists {
			t.Error("ann is not there")
		}
		old.Age++
		return old, nil
	})
	if err != nil || got.Age != 31 {
		t.Fatalf("updated %v, %v", got, err)
	}
	full := errors.New("full")
	if _, err := d.Update(ctx, "carl", func(person, bool) (person, error) { return person{}, full }); !errors.Is(err, full) {
		t.Fatalf("the error of fn: %v", err)
	}
	var all []string
	for e, err := range d.Range(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(e.Key, e.Value))
	}
	if fmt.Sprint(all) != "[ann{Ann 31} bob{Bob 40}]" {
		t.Fatalf("all: %v", all)
	}
	if n := must[uint64](t)(d.Count(ctx)); n != 2 {
		t.Fatalf("%d entries", n)
	}
	for _, want := range []bool{true, false} {
		if existed, err := d.Remove(ctx, "ann"); err != nil || existed != want {
			t.Fatalf("removed %v, %v", existed, err)
		}
	}
	if rec := s.Record("dict/people/bob"); rec.GetContentType() != "application/json" || string(rec.GetValue()) != `{"name":"Bob","age":40}` {
		t.Fatalf("stored %v", rec)
	}
	s.Change("dict/people/bob", func(r *api.Record) { r.Value, r.Checksum = []byte("{"), 0 })
	if _, _, err := d.Get(ctx, "bob"); err == nil {
		t.Fatal("a value that is no JSON was read")
	}
}

type id int16

func TestKeysKeepTheirOrder(t *testing.T) {
	_, c := connect(t)
	d := must[*collections.Dictionary[id, []byte]](t)(collections.NewDictionaryOf[id](c, "{x}ids", collections.Bytes{}))
	for _, k := range []id{5, -3, 0, 300, -32768, 32767} {
		if err := d.Set(t.Context(), k, []byte(fmt.Sprint(k))); err != nil {
			t.Fatal(err)
		}
	}
	var got []id
	for e, err := range d.Range(t.Context(), client.Reverse()) {
		if err != nil || string(e.Value) != fmt.Sprint(e.Key) {
			t.Fatalf("%v, %v", e, err)
		}
		got = append(got, e.Key)
	}
	if !slices.Equal(got, []id{32767, 300, 5, 0, -3, -32768}) {
		t.Fatalf("keys %v", got)
	}
	if _, err := c.Put(t.Context(), "dict/{x}ids/what", nil); err != nil {
		t.Fatal(err)
	}
	var failed error
	for _, err := range d.Range(t.Context()) {
		failed = err
	}
	if failed == nil {
		t.Fatal("a key that is no number was read")
	}
}

func TestNames(t *testing.T) {
	_, c := connect(t)
	for _, name := range []string{"", "a/b", "{}", "{a", "a}", "}a{", "{a}{b}", "\xff", string(make([]byte, 300))} {
		_, derr := collections.NewDictionary[string, int](c, name)
		_, qerr := collections.NewQueue[int](c, name)
		if derr == nil || qerr == nil {
			t.Errorf("%q: %v, %v", name, derr, qerr)
		}
	}
}

func TestQueue(t *testing.T) {
	s, c := connect(t)
	ctx := t.Context()
	q := must[*collections.Queue[string]](t)(collections.NewQueue[string](c, "jobs"))
	if _, ok, err := q.TryDequeue(ctx); ok || err != nil {
		t.Fatalf("of an empty one: %v, %v", ok, err)
	}
	if err := errors.Join(q.Enqueue(ctx, "a", "b"), q.Enqueue(ctx), q.Enqueue(ctx, "c")); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := q.Peek(ctx); v != "a" || !ok || err != nil {
		t.Fatalf("peek %q, %v, %v", v, ok, err)
	}
	if n := must[uint64](t)(q.Count(ctx)); n != 3 {
		t.Fatalf("%d elements", n)
	}
	for _, want := range []string{"a", "b"} {
		if v, ok, err := q.TryDequeue(ctx); v != want || !ok || err != nil {
			t.Fatalf("took %q, %v, %v", v, ok, err)
		}
	}
	key := fmt.Sprintf("queue/{jobs}/e/%016x", 3)
	s.Change(key, func(r *api.Record) { r.Value, r.Checksum = []byte("{"), 0 })
	if _, ok, err := q.TryDequeue(ctx); ok || err == nil || s.Record(key) == nil {
		t.Fatalf("an element that is no JSON: %v, %v", ok, err)
	}
	if ok, err := q.Discard(ctx); !ok || err != nil || s.Record(key) != nil {
		t.Fatalf("discarded %v, %v", ok, err)
	}
	if ok, err := q.Discard(ctx); ok || err != nil {
		t.Fatalf("discarded %v, %v", ok, err)
	}
}

// An element is taken and an entry changed in one step, or neither.
func TestTransactionOverBoth(t *testing.T) {
	_, c := connect(t)
	ctx := t.Context()
	q := must[*collections.Queue[int]](t)(collections.NewQueue[int](c, "{shop}orders"))
	d := must[*collections.Dictionary[string, int]](t)(collections.NewDictionary[string, int](c, "{shop}totals"))
	if err := q.Enqueue(ctx, 5, 7); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	add := func(fail error) error {
		return c.Transact(ctx, func(tx *client.Tx) error {
			n, ok, err := q.TryDequeueTx(tx)
			if err != nil || !ok {
				return errors.Join(err, fail)
			}
			total, _, err := d.GetTx(tx, "all")
			if err := errors.Join(err, d.SetTx(tx, "all", total+n)); err != nil {
				return err
			}
			return fail
		})
	}
	if err := add(stop); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if n := must[uint64](t)(q.Count(ctx)); n != 2 {
		t.Fatalf("%d elements after a transaction that was given up", n)
	}
	for range 3 {
		if err := add(nil); err != nil {
			t.Fatal(err)
		}
	}
	if total, _, err := d.Get(ctx, "all"); total != 12 || err != nil {
		t.Fatalf("total %d, %v", total, err)
	}
	// Within a transaction its own writes are seen.
	err := c.Transact(ctx, func(tx *client.Tx) error {
		if err := q.EnqueueTx(tx, 1, 2); err != nil {
			return err
		}
		n, err := q.CountTx(tx)
		first, ok, err2 := q.TryDequeueTx(tx)
		second, _, err3 := q.PeekTx(tx)
		d.RemoveTx(tx, "all")
		if err := errors.Join(err, err2, err3); err != nil || n != 2 || first != 1 || second != 2 || !ok {
			return fmt.Errorf("%d elements, took %d, then %d: %w", n, first, second, err)
		}
		return nil
	})
	if v, ok, err2 := q.TryDequeue(ctx); errors.Join(err, err2) != nil || v != 2 || !ok {
		t.Fatalf("%v, %v; took %d, %v", err, err2, v, ok)
	}
	if _, ok, err := d.Get(ctx, "all"); ok || err != nil {
		t.Fatalf("removed: %v, %v", ok, err)
	}
}

// loseAnswers makes one in n writes lose its answer, half of these after it was
// executed. Some of the others come late: they are executed when the next ones are.
func loseAnswers(s *memserver.Server, seed uint64, n int) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	var late []func() error
	s.Intercept(func(op *api.PipelineOp, run func() error) error {
		if op.GetGet() != nil {
			return run()
		}
		mu.Lock()
		defer mu.Unlock()
		lost := memserver.Errorf("unknown_outcome", "the answer is lost")
		if len(late) > 0 && r.IntN(2) == 0 {
			_ = late[0]() // nobody waits for it
			late = late[1:]
		}
		switch k := r.IntN(2 * n); k {
		case 0:
			_ = run()
			return lost
		case 1:
			if r.IntN(2) == 0 {
				late = append(late, run)
			}
			return lost
		}
		return run()
	})
}

// checker holds what was taken to what was added: each element once, and those of
// one producer in their order.
type checker struct {
	mu    sync.Mutex
	taken map[string]int
	order map[string]int // of consumer and producer: the last number
}

type element struct {
	Producer string
	N        int
}

func (k *checker) take(t *testing.T, consumer int, e element) (total int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taken[fmt.Sprint(e)]++
	pair := fmt.Sprint(consumer, " ", e.Producer)
	if last, ok := k.order[pair]; ok && last >= e.N {
		t.Errorf("consumer %d took %v after %d", consumer, e, last)
	}
	k.order[pair] = e.N
	return len(k.taken)
}

// Producers and consumers in several programs, whose answers are lost now and
// then: no element is lost or doubled, and all leave in order.
func TestQueueKeepsEveryElementOnce(t *testing.T) {
	const producers, consumers, each = 3, 3, 15
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s, _ := connect(t)
	loseAnswers(s, seed, 8)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k := &checker{taken: map[string]int{}, order: map[string]int{}}
	open := func() *collections.Queue[element] {
		q, err := collections.NewQueue[element](dial(t, s), "q")
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	var wg sync.WaitGroup
	for p := range producers {
		q := open()
		wg.Go(func() {
			for n := 0; n < each; n += 3 {
				e := element{fmt.Sprint(p), n}
				if err := q.Enqueue(ctx, e, element{e.Producer, n + 1}, element{e.Producer, n + 2}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	for c := range consumers {
		q := open()
		wg.Go(func() {
			for {
				e, ok, err := q.TryDequeue(ctx)
				switch {
				case err != nil:
					t.Error(err)
					return
				case ok && k.take(t, c, e) == producers*each:
					close(done)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	if len(k.taken) != producers*each {
		t.Errorf("%d of %d elements were taken", len(k.taken), producers*each)
	}
	for e, n := range k.taken {
		if n != 1 {
			t.Errorf("%s was taken %d times", e, n)
		}
	}
}

// Counters that several programs add to, whose answers are lost now and then.
func TestUpdateCountsEveryTime(t *testing.T) {
	const writers, each = 3, 12
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s, _ := connect(t)
	loseAnswers(s, seed, 6)
	var wg sync.WaitGroup
	var mu sync.Mutex
	added := 0
	for range writers {
		d, err := collections.NewDictionary[string, int](dial(t, s), "counters")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range each {
				if _, err := d.Update(t.Context(), "n", func(old int, _ bool) (int, error) { return old + 1, nil }); err != nil {
					t.Error(err)
				}
				ok, err := d.TryAdd(t.Context(), fmt.Sprint(i), 1)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if ok {
					added++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	d := must[*collections.Dictionary[string, int]](t)(collections.NewDictionary[string, int](dial(t, s), "counters"))
	s.Intercept(nil)
	if n, _, err := d.Get(t.Context(), "n"); n != writers*each || err != nil || added != each {
		t.Errorf("counted %d of %d, added %d of %d, %v", n, writers*each, added, each, err)
	}
}

// Without an answer until the end nothing is claimed.
func TestUnknownOutcomeIsSaid(t *testing.T) {
	s, c := connect(t)
	s.Intercept(func(op *api.PipelineOp, run func() error) error {
		if op.GetTransaction() == nil {
			return run()
		}
		return memserver.Errorf("unknown_outcome", "the answer is lost")
	})
	q := must[*collections.Queue[int]](t)(collections.NewQueue[int](c, "q"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := q.Enqueue(ctx, 1); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Fatal(err)
	}
}
