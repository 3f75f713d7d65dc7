package badger

import (
	"testing"
	"time"
)

// What a write leaves free has room for the merge of level 0, which here has all
// tables.
func TestReserveHasRoomForAMerge(t *testing.T) {
	o := testOptions()
	o.NumLevelZeroTables = 100
	dir := t.TempDir()
	reopen := func() *Engine {
		e, err := open(dir, o, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := reopen()
	loadRandom(t, e, 20_000, 200)
	mustClose(t, e)
	e = reopen() // level 0 has a table at least: closing flushed the memtable
	defer mustClose(t, e)
	var tables int64
	for _, l := range e.db.Levels() {
		tables += l.Size
	}
	if tables != e.db.Levels()[0].Size || tables == 0 {
		t.Fatalf("%d bytes in tables, %d of them in level 0", tables, e.db.Levels()[0].Size)
	}
	if got, want := e.reserve(), o.MemtableSize*int64(o.NumMemtables+2)+tables; got != want {
		t.Errorf("reserves %d bytes with %d in tables, want %d", got, tables, want)
	}
}
