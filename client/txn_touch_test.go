package client

import (
	"errors"
	"testing"
	"time"
)

// TestTransactTouches: a touch in a transaction is one outside, at its commit.
func TestTransactTouches(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	at := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	for name, tc := range map[string]struct {
		work func(tx *Tx)
		want time.Time
		err  error
	}{
		"touched":            {func(tx *Tx) { tx.Touch("{t}k", WithExpiry(at)) }, at, nil},
		"persisted":          {func(tx *Tx) { tx.Touch("{t}k", Persist()) }, time.Time{}, nil},
		"the last one":       {func(tx *Tx) { tx.Touch("{t}k", Persist()); tx.Touch("{t}k", WithExpiry(at)) }, at, nil},
		"of a put":           {func(tx *Tx) { tx.Put("{t}k", []byte("v")); tx.Touch("{t}k", WithExpiry(at)) }, at, nil},
		"of a put with TTL":  {func(tx *Tx) { tx.Put("{t}k", []byte("v"), WithTTL(time.Minute)); tx.Touch("{t}k", Persist()) }, time.Time{}, nil},
		"before a put":       {func(tx *Tx) { tx.Touch("{t}k", WithExpiry(at)); tx.Put("{t}k", []byte("v")) }, time.Time{}, nil},
		"of nothing":         {func(tx *Tx) { tx.Touch("{t}none", WithExpiry(at)) }, time.Time{}, ErrConditionFailed},
		"of what it deletes": {func(tx *Tx) { tx.Delete("{t}k"); tx.Touch("{t}k", WithExpiry(at)) }, time.Time{}, ErrConditionFailed},
		"no deadline":        {func(tx *Tx) { tx.Touch("{t}k") }, time.Time{}, ErrInvalidArgument},
		"condition":          {func(tx *Tx) { tx.Touch("{t}k", Persist(), IfVersion(99)) }, time.Time{}, ErrConditionFailed},
		"condition on a put": {func(tx *Tx) { tx.Put("{t}k", nil); tx.Touch("{t}k", Persist(), IfVersion(1)) }, time.Time{}, ErrInvalidArgument},
		"of another space":   {func(tx *Tx) { tx.Touch("{t}k", WithExpiry(at), InNamespace("app")) }, time.Time{}, ErrConditionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			mustPut(t, c, "{t}k", "v")
			err := c.Transact(t.Context(), func(tx *Tx) error {
				tx.Put("{t}other", []byte(name))
				tc.work(tx)
				return nil
			})
			if !errors.Is(err, tc.err) {
				t.Fatalf("want %v, got %v", tc.err, err)
			}
			rec, err := c.Get(t.Context(), "{t}k")
			if err != nil || string(rec.Value) != "v" || !rec.ExpiresAt.Equal(tc.want) {
				t.Errorf("%q until %v, want %v, %v", rec.Value, rec.ExpiresAt, tc.want, err)
			}
			other, _ := c.Get(t.Context(), "{t}other")
			if happened := string(other.Value) == name; happened != (tc.err == nil) {
				t.Errorf("the other write happened: %v", happened)
			}
		})
	}
}

// TestTransactReadsItsTouches: with the value that is there, which has to stay so.
func TestTransactReadsItsTouches(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	mustPut(t, c, "{t}k", "1")
	at := time.UnixMilli(time.Now().Add(time.Hour).UnixMilli())
	runs := 0
	err := c.Transact(t.Context(), func(tx *Tx) error {
		tx.Touch("{t}k", WithExpiry(at))
		rec, err := tx.Get("{t}k")
		if err != nil || !rec.ExpiresAt.Equal(at) || rec.Revision != 0 || rec.Version != 0 {
			t.Errorf("read %+v, %v", rec, err)
		}
		if runs++; runs == 1 {
			mustPut(t, c, "{t}k", "2")
		} else if string(rec.Value) != "2" {
			t.Errorf("read %q", rec.Value)
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs, %v", runs, err)
	}
}
