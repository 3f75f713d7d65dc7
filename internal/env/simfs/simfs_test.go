package simfs

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/fstest"
)

func TestContract(t *testing.T) { fstest.Run(t, New(), "/data") }

// mustFile makes a durable file of sectors full of 'a'.
func mustFile(t *testing.T, f *FS, sectors int) env.File {
	t.Helper()
	file, err := f.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, 'a', 0, sectors*SectorBytes)
	if err := errors.Join(file.Sync(), f.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustWrite(t *testing.T, file env.File, c byte, off int64, n int) {
	t.Helper()
	if _, err := file.WriteAt(bytes.Repeat([]byte{c}, n), off); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f *FS) []byte {
	t.Helper()
	file, err := f.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	size, _ := file.Size()
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestImageHasAnySubsetOfUnsyncedSectors(t *testing.T) {
	f := New()
	file := mustFile(t, f, 3)
	mustWrite(t, file, 'b', 0, 3*SectorBytes)
	if n := len(f.Pending()); n != 3 {
		t.Fatalf("%d units pending, want 3", n)
	}
	for subset := range 8 {
		image := f.Image(func(n int, _ Unit) Choice { return Choice{Version: subset >> n & 1} })
		got := read(t, image)
		for n := range 3 {
			want := byte('a' + subset>>n&1)
			if s := got[n*SectorBytes : (n+1)*SectorBytes]; !bytes.Equal(s, bytes.Repeat([]byte{want}, SectorBytes)) {
				t.Fatalf("subset %b: sector %d is %q", subset, n, s[0])
			}
		}
		if len(image.Pending()) != 0 {
			t.Fatal("an image has nothing pending")
		}
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Pending()); n != 0 {
		t.Fatalf("%d units pending after Sync", n)
	}
}

func TestTornSector(t *testing.T) {
	f := New()
	file := mustFile(t, f, 1)
	mustWrite(t, file, 'b', 0, SectorBytes)
	for _, end := range []bool{false, true} {
		got := read(t, f.Image(func(int, Unit) Choice { return Choice{Version: 1, Torn: 10, TornEnd: end} }))
		want := append(bytes.Repeat([]byte{'b'}, 10), bytes.Repeat([]byte{'a'}, SectorBytes-10)...)
		if end {
			want = append(bytes.Repeat([]byte{'a'}, SectorBytes-10), bytes.Repeat([]byte{'b'}, 10)...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("end %v: %q", end, got)
		}
	}
}

func TestNamesNeedSyncDir(t *testing.T) {
	f := New()
	_ = mustFile(t, f, 1)
	if err := f.Rename("/f", "/g"); err != nil {
		t.Fatal(err)
	}
	lost := f.Image(func(int, Unit) Choice { return Choice{} })
	kept := f.Image(func(int, Unit) Choice { return Choice{Version: 1} })
	if got := lost.Files(); !slices.Equal(got, []string{"/f"}) {
		t.Fatalf("without the rename: %q", got)
	}
	if got := kept.Files(); !slices.Equal(got, []string{"/g"}) {
		t.Fatalf("with the rename: %q", got)
	}
}

// After an fsync error the cache shows bytes that no later fsync writes, as on
// Linux.
func TestFailedSyncLosesForGood(t *testing.T) {
	f := New()
	file := mustFile(t, f, 1)
	mustWrite(t, file, 'b', 0, SectorBytes)
	f.Before(func(o Op) error {
		if o.Kind == OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync = %v", err)
	}
	f.Before(nil)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f)[0]; got != 'b' {
		t.Fatalf("the cache has %q", got)
	}
	if got := read(t, f.Image(func(int, Unit) Choice { return Choice{} }))[0]; got != 'a' {
		t.Fatalf("the disk has %q", got)
	}
	mustWrite(t, file, 'b', 0, SectorBytes)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.Image(func(int, Unit) Choice { return Choice{} }))[0]; got != 'b' {
		t.Fatalf("written again, the disk has %q", got)
	}
}

func TestCapacity(t *testing.T) {
	f := New()
	f.SetCapacity(4 * SectorBytes)
	file := mustFile(t, f, 3)
	if err := file.Preallocate(5 * SectorBytes); !errors.Is(err, env.ErrNoSpace) {
		t.Fatalf("Preallocate = %v", err)
	}
	if free, _ := f.Free("/"); free != SectorBytes {
		t.Fatalf("Free = %d", free)
	}
	if err := file.Preallocate(4 * SectorBytes); err != nil {
		t.Fatal(err)
	}
}

func TestFlipBitStaysOutOfImagesMadeBefore(t *testing.T) {
	f := New()
	_ = mustFile(t, f, 1)
	before := f.Image(func(int, Unit) Choice { return Choice{} })
	if err := f.FlipBit("/f", 5, 0); err != nil {
		t.Fatal(err)
	}
	if a, b := read(t, f)[5], read(t, before)[5]; a != 'a'^1 || b != 'a' {
		t.Fatalf("flipped %q, image %q", a, b)
	}
}
