// Package enginetest is the contract of engine.Engine as tests, run on every
// engine.
package enginetest

import (
	"bytes"
	"fmt"
	"sort"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// model is the simplest right engine: versions by key.
type model map[string][]engine.Write

func (m model) write(writes []engine.Write) {
	for _, w := range writes {
		versions := m[string(w.Key)]
		at := sort.Search(len(versions), func(i int) bool { return versions[i].Revision <= w.Revision })
		if at < len(versions) && versions[at].Revision == w.Revision {
			versions[at] = w
		} else {
			versions = append(versions[:at:at], append([]engine.Write{w}, versions[at:]...)...)
		}
		m[string(w.Key)] = versions
	}
}

// get returns the newest version at or below at, nil when none.
func (m model) get(key []byte, at keyspace.Revision) *engine.Write {
	for i := range m[string(key)] {
		if w := &m[string(key)][i]; w.Revision <= at {
			return w
		}
	}
	return nil
}

// scan returns what an iterator has to return.
func (m model) scan(o engine.IterOptions) []engine.Write {
	var keys []string
	for key := range m {
		if key >= string(o.Lower) && (o.Upper == nil || key < string(o.Upper)) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	if o.Reverse {
		sort.Sort(sort.Reverse(sort.StringSlice(keys)))
	}
	var out []engine.Write
	for _, key := range keys {
		for _, w := range m[key] {
			if w.Revision > o.At {
				continue
			}
			if o.AllVersions || !w.Delete {
				out = append(out, w)
			}
			if !o.AllVersions {
				break
			}
		}
	}
	return out
}

// seek leaves what an iterator returns after Seek(key).
func seek(all []engine.Write, key []byte, reverse bool) []engine.Write {
	for i := range all {
		c := bytes.Compare(all[i].Key, key)
		if c >= 0 && !reverse || c <= 0 && reverse {
			return all[i:]
		}
	}
	return nil
}

func collect(t testing.TB, it engine.Iterator) []engine.Write {
	t.Helper()
	var out []engine.Write
	for ; it.Valid(); it.Next() {
		value, err := it.Value()
		if err != nil {
			t.Fatalf("value of %x at %v: %v", it.Key(), it.Revision(), err)
		}
		out = append(out, engine.Write{
			Key: bytes.Clone(it.Key()), Revision: it.Revision(), Value: bytes.Clone(value), Delete: it.Deleted(),
		})
	}
	if err := it.Err(); err != nil {
		t.Fatalf("iterate: %v", err)
	}
	return out
}

func equal(a, b []engine.Write) error {
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i].Key, b[i].Key) || a[i].Revision != b[i].Revision ||
			!bytes.Equal(a[i].Value, b[i].Value) || a[i].Delete != b[i].Delete {
			return fmt.Errorf("position %d: got %s, want %s", i, show(a[i]), show(b[i]))
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("got %d versions, want %d", len(a), len(b))
	}
	return nil
}

func show(w engine.Write) string {
	return fmt.Sprintf("%x@%d delete=%t %d bytes", w.Key, uint64(w.Revision), w.Delete, len(w.Value))
}
