//go:build unix

package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"kvstore/client"
	"kvstore/test/cluster/harness"
	"kvstore/test/history"
)

// mixedBank is money that moves between accounts of all groups, and readers of all
// of them at one moment.
type mixedBank struct {
	all    history.Bank
	byTag  map[string]history.Bank
	serial atomic.Int64

	mu        sync.Mutex
	sightings int
	moved     int
	wrong     []history.Violation
}

const (
	bankPrefix  = "bank/"
	bankBalance = 100 // of every account in the beginning
)

// open writes the accounts: two of each hash part, which only its own money reaches
// while no transaction has several groups.
func (b *mixedBank) open(m *mixed) {
	m.t.Helper()
	b.byTag = map[string]history.Bank{}
	for _, tag := range slices.Concat(m.tags...) {
		var own history.Bank
		for i := range keysOfTag {
			key, value := fmt.Sprintf("%s%s%d", bankPrefix, tag, i), b.value(bankBalance)
			res, err := m.clients[0].Put(m.t.Context(), key, []byte(value), client.IfAbsent())
			if err != nil {
				m.t.Fatal(err)
			}
			m.note(history.Write{Revision: res.Revision, Changes: []history.Change{{Key: key, Value: value}}})
			own.Accounts, own.Total = append(own.Accounts, key), own.Total+bankBalance
		}
		b.byTag[tag] = own
		b.all.Accounts, b.all.Total = append(b.all.Accounts, own.Accounts...), b.all.Total+own.Total
	}
}

// value is a balance, unlike every other value.
func (b *mixedBank) value(balance int) string { return fmt.Sprintf("%d #%d", balance, b.serial.Add(1)) }

func (b *mixedBank) work(w *worker) {
	switch n := w.random.IntN(10); {
	case n < 6:
		b.move(w)
	case n < 9:
		b.look(w)
	default:
		b.list(w)
	}
}

// move takes from one account and gives to others.
func (b *mixedBank) move(w *worker) {
	tags := w.places()
	keys := w.spread(bankPrefix, tags, 2)
	if len(keys) < 2 {
		keys = b.byTag[tags[0]].Accounts
	}
	ctx, cancel := w.context()
	defer cancel()
	var changes []history.Change
	err := w.client.Transact(ctx, func(tx *client.Tx) error {
		if changes != nil {
			w.note(history.Write{Outcome: history.Aborted, Changes: changes})
			changes = nil
		}
		for i, key := range keys {
			rec, err := tx.Get(key)
			if err != nil {
				return err
			}
			balance, err := balanceOf(rec)
			if err != nil {
				return err
			}
			change := 1
			if i == 0 {
				change = 1 - len(keys)
			}
			value := b.value(balance + change)
			tx.Put(key, []byte(value))
			changes = append(changes, history.Change{Key: key, Value: value})
		}
		return nil
	})
	o := w.outcome(err)
	if len(changes) == len(keys) || o != history.Aborted {
		w.note(history.Write{Outcome: o, Changes: changes})
	}
	w.ended(o, len(tags))
	if o == history.Committed {
		b.mu.Lock()
		b.moved++
		b.mu.Unlock()
	}
}

func balanceOf(rec client.Record) (int, error) {
	text, _, found := strings.Cut(string(rec.Value), " #")
	balance, err := strconv.Atoi(text)
	if err != nil || !found {
		return 0, fmt.Errorf("%s holds %q", rec.Key, rec.Value)
	}
	return balance, nil
}

// look reads in one transaction: all accounts where transactions may have several
// groups, else those of one hash part.
func (b *mixedBank) look(w *worker) {
	bank, groups := b.all, len(w.tags)
	if w.share == 0 {
		bank, groups = b.byTag[w.places()[0]], 1
	}
	ctx, cancel := w.context()
	defer cancel()
	s := history.Sighting{Client: w.id, How: "transaction", Span: history.Span{Call: w.now()}, Balances: map[string]int{}}
	txn := w.client.Txn(ctx)
	for _, key := range bank.Accounts {
		txn.Then(client.OpGet(key))
	}
	res, err := txn.Commit()
	o := w.outcome(err)
	if w.ended(o, groups); o != history.Committed {
		return
	}
	s.Return = w.now()
	for i, key := range bank.Accounts {
		rec, err := res.Get(i)
		if err == nil {
			s.Balances[key], err = balanceOf(rec)
		}
		if err != nil {
			w.t.Errorf("%s: %v", key, err)
		}
	}
	b.see(bank, s)
}

// list reads all accounts by a list, which is a snapshot of all groups; in pages,
// now and then.
func (b *mixedBank) list(w *worker) {
	ctx, cancel := w.context()
	defer cancel()
	limit := len(b.all.Accounts) + 1
	if w.chance(2) {
		limit = 2
	}
	if s, err := b.listed(ctx, w, limit); err == nil {
		b.see(b.all, s)
	} else {
		w.outcome(err)
	}
}

func (b *mixedBank) listed(ctx context.Context, w *worker, limit int) (s history.Sighting, err error) {
	s = history.Sighting{Client: w.id, How: fmt.Sprintf("list in pages of %d", limit), Span: history.Span{Call: w.now()}, Balances: map[string]int{}}
	for rec, err := range w.client.Scan(ctx, client.WithPrefix(bankPrefix), client.WithLimit(limit)) {
		if err != nil {
			return s, err
		}
		if s.Balances[rec.Key], err = balanceOf(rec); err != nil {
			return s, err
		}
	}
	s.Return = w.now()
	return s, nil
}

func (b *mixedBank) see(bank history.Bank, s history.Sighting) {
	v := bank.Judge(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sightings++
	if v != nil {
		b.wrong = append(b.wrong, *v)
	}
}

func (b *mixedBank) readAll(m *mixed) {
	w := &worker{mixed: m, client: m.clients[0]}
	harness.Eventually(m.t, func() error {
		ctx, cancel := w.context()
		defer cancel()
		s, err := b.listed(ctx, w, len(b.all.Accounts)+1)
		if err == nil {
			b.see(b.all, s)
		}
		return err
	})
}

func (b *mixedBank) judge(report report) {
	report("bank", b.wrong[:min(len(b.wrong), 3)], b.moved, " transfers, seen ", b.sightings, " times")
}
