package sstable

import (
	"errors"
	"fmt"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const testReserve = 1 << 20

func openReserved(t *testing.T, fs env.FS) *History {
	t.Helper()
	s, err := OpenHistory(fs, testDir, Options{ReserveBytes: testReserve})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill adds 10 KB versions until one is refused.
func fill(w *Writer, most int) (added int, err error) {
	for ; added < most; added++ {
		v := Version{Key: fmt.Appendf(nil, "key %06d", added), Revision: keyspace.Revision(added), Until: 1 << 40, Value: make([]byte, 10_000)}
		if err := w.Add(1, v); err != nil {
			return added, err
		}
	}
	return added, nil
}

func wantFull(t *testing.T, err error) {
	t.Helper()
	wantCode(t, err, fault.Overloaded)
	if f := (*fault.Error)(nil); !errors.As(err, &f) || f.RetryAfter != fullRetry {
		t.Fatalf("error %v has no hint when to try again", err)
	}
}

func mustAbort(t *testing.T, w *Writer) {
	t.Helper()
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
}

func TestNoFileIsBegunInTheReserve(t *testing.T) {
	fs := simfs.New()
	s := openReserved(t, fs)
	fs.SetCapacity(testReserve + syncBytes - 1)
	w := s.Writer()
	if _, err := fill(w, 1); err != nil {
		t.Fatal(err)
	}
	wantFull(t, w.Finish())
	mustAbort(t, w)
	if got := names(t, fs); len(got) != 0 {
		t.Fatalf("files %q", got)
	}
	fs.SetCapacity(testReserve + syncBytes)
	mustWrite(t, s, ver(1, "a", 1, 2))
	wantNames(t, fs, 2)
}

func TestAWriterThatFillsTheDiskLeavesTheReserve(t *testing.T) {
	fs := simfs.New()
	s := openReserved(t, fs)
	mustWrite(t, s, ver(1, "a", 1, 2))
	before := s.Bytes()
	fs.SetCapacity(testReserve + 2*syncBytes + 1000)
	w := s.Writer()
	added, err := fill(w, 10_000)
	wantFull(t, err)
	if added < syncBytes/11_000 {
		t.Errorf("refused after %d versions", added)
	}
	if free, _ := fs.Free(testDir); free < testReserve {
		t.Errorf("%d bytes are left, reserved were %d", free, testReserve)
	}
	mustAbort(t, w)
	wantNames(t, fs, 1)
	if s.Bytes() != before || s.Files() != 1 {
		t.Errorf("%d bytes in %d files, were %d in 1", s.Bytes(), s.Files(), before)
	}

	fs.SetCapacity(testReserve + 4*syncBytes)
	w = s.Writer()
	if _, err := fill(w, added+1); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := s.Get(1, fmt.Appendf(nil, "key %06d", added), 1<<39); !ok || err != nil || len(v.Value) != 10_000 {
		t.Fatal(v, ok, err)
	}
}

// Somebody else may take the room that was there.
func TestAWriterSurvivesADiskThatOthersFill(t *testing.T) {
	fs := simfs.New()
	s := openReserved(t, fs)
	w := s.Writer()
	if _, err := fill(w, 20); err != nil {
		t.Fatal(err)
	}
	fs.SetCapacity(fs.Used() + 10)
	_, err := fill(w, 20)
	wantFull(t, err)
	if !errors.Is(err, env.ErrNoSpace) {
		t.Errorf("error %v", err)
	}
	mustAbort(t, w)
	if fs.Used() != 0 {
		t.Errorf("%d bytes stay", fs.Used())
	}
	fs.SetCapacity(0)
	mustWrite(t, s, ver(1, "a", 1, 2))
}

// Whatever operation fails, Abort leaves nothing of the file, and the next
// Writer finds the Store as it was.
func TestAbortRemovesTheFileAfterAnyFailure(t *testing.T) {
	for _, injected := range []error{errDisk, env.ErrNoSpace} {
		done := false
		for n := 0; !done; n++ {
			fs := simfs.New()
			s := mustOpen(t, fs)
			mustWrite(t, s, ver(1, "a", 1, 2))
			failed := failNth(fs, n, injected)
			w := s.Writer()
			err := func() error {
				for _, v := range small() {
					if err := w.Add(v.inst, v.Version); err != nil {
						return err
					}
				}
				return w.Finish()
			}()
			fs.Before(nil)
			if done = failed.Kind == ""; done {
				if err != nil || n < 8 {
					t.Fatalf("%v after %d operations", err, n)
				}
				break
			}
			if !errors.Is(err, injected) {
				t.Fatalf("%v failed: %v", failed, err)
			}
			switch failed.Kind {
			case simfs.OpOpen, simfs.OpRead: // a full disk has no part in it
			default:
				if full := errors.Is(injected, env.ErrNoSpace); (fault.CodeOf(err) == fault.Overloaded) != full {
					t.Errorf("%v failed: %v, overloaded: want %t", failed, err, full)
				}
			}
			mustAbort(t, w)
			if got := names(t, fs); len(got) != 1 || s.Files() != 1 {
				t.Errorf("%v failed: files %q, %d opened, want one", failed, got, s.Files())
			}
			mustWrite(t, s, small()...)
			if s = mustOpen(t, fs); s.Files() != 2 {
				t.Errorf("%v failed: %d files at the next start, want 2", failed, s.Files())
			}
		}
	}
}

func TestAbortMayBeRepeated(t *testing.T) {
	fs := simfs.New()
	w := mustOpen(t, fs).Writer()
	if _, err := fill(w, 20); err != nil {
		t.Fatal(err)
	}
	if len(names(t, fs)) != 1 {
		t.Fatalf("files %q", names(t, fs))
	}
	mustAbort(t, w)
	mustAbort(t, w)
	if got := names(t, fs); len(got) != 0 {
		t.Fatalf("files %q", got)
	}
}
