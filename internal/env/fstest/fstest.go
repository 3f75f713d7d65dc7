// Package fstest is the contract of env.FS as a test that every file system
// passes.
package fstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"kvstore/internal/env"
)

// Run tests a file system in the empty directory dir of it.
func Run(t *testing.T, f env.FS, dir string) {
	t.Run("names", func(t *testing.T) { names(t, f, path.Join(dir, "names")) })
	t.Run("bytes", func(t *testing.T) { contents(t, f, path.Join(dir, "bytes")) })
	t.Run("uncached", func(t *testing.T) { uncached(t, f, path.Join(dir, "uncached")) })
	t.Run("errors", func(t *testing.T) { missing(t, f, path.Join(dir, "errors")) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t *testing.T, f env.FS, name string) env.File {
	t.Helper()
	file, err := f.Create(name)
	must(t, err)
	return file
}

func names(t *testing.T, f env.FS, dir string) {
	must(t, f.MkdirAll(path.Join(dir, "sub")))
	must(t, f.MkdirAll(dir))
	for _, n := range []string{"b", "a", "c"} {
		must(t, mustCreate(t, f, path.Join(dir, n)).Close())
	}
	must(t, f.Rename(path.Join(dir, "a"), path.Join(dir, "b")))
	must(t, f.Remove(path.Join(dir, "c")))
	must(t, f.SyncDir(dir))
	got, err := f.List(dir)
	must(t, err)
	if want := []string{"b", "sub"}; !slices.Equal(got, want) {
		t.Fatalf("List = %q, want %q", got, want)
	}
	if free, err := f.Free(dir); err != nil || free == 0 {
		t.Fatalf("Free = %d, %v", free, err)
	}
}

func contents(t *testing.T, f env.FS, dir string) {
	must(t, f.MkdirAll(dir))
	name := path.Join(dir, "f")
	file := mustCreate(t, f, name)
	must(t, file.Preallocate(10_000))
	must(t, file.Preallocate(5_000)) // never shrinks
	data := bytes.Repeat([]byte("0123456789"), 100)
	if n, err := file.WriteAt(data, 700); n != len(data) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	must(t, file.Sync())
	must(t, file.Close())
	file, err := f.Open(name)
	must(t, err)
	got := make([]byte, 10_000)
	if _, err := file.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 10_000)
	copy(want[700:], data)
	if !bytes.Equal(got, want) {
		t.Fatal("bytes differ from what was written, or what was not written is not zero")
	}
	if n, err := file.ReadAt(got, 9_990); n != 10 || !errors.Is(err, io.EOF) {
		t.Fatalf("ReadAt across the end = %d, %v", n, err)
	}
	must(t, file.Truncate(1_000))
	must(t, file.Truncate(2_000))
	if size, err := file.Size(); size != 2_000 || err != nil {
		t.Fatalf("Size = %d, %v", size, err)
	}
	if _, err := file.ReadAt(got[:2_000], 0); err != nil {
		t.Fatal(err)
	}
	clear(want[1_000:])
	if !bytes.Equal(got[:2_000], want[:2_000]) {
		t.Fatal("what Truncate cut is not zero when the file grows again")
	}
	must(t, file.Close())
	file = mustCreate(t, f, name)
	if size, err := file.Size(); size != 0 || err != nil {
		t.Fatalf("Size after Create over a file = %d, %v", size, err)
	}
	must(t, file.Close())
}

// uncached holds a file whose aligned writes may go past the page cache against a
// model: such writes, others, and reads of all of them are the same file.
func uncached(t *testing.T, f env.FS, dir string) {
	must(t, f.MkdirAll(dir))
	name := path.Join(dir, "f")
	const size = 3 << 20
	file, want := mustCreate(t, f, name), make([]byte, size)
	env.Uncached(file)
	must(t, file.Preallocate(size))
	r := rand.New(rand.NewPCG(1, 2))
	// Large allocations begin at a page, so some of these can be direct.
	buf := make([]byte, 256<<10)
	for step := range 400 {
		from, n := r.IntN(size/512)*512, (1+r.IntN(64))*512
		start := 0
		if r.IntN(4) == 0 {
			from, n, start = from+r.IntN(512), n-r.IntN(512), r.IntN(512)
		}
		n = min(n, size-from)
		data := buf[start : start+n]
		for i := range data {
			data[i] = byte(step + i)
		}
		copy(want[from:], data)
		if r.IntN(2) == 0 {
			must(t, env.WriteSync(file, data, int64(from)))
		} else if n, err := file.WriteAt(data, int64(from)); n != len(data) || err != nil {
			t.Fatalf("WriteAt = %d, %v", n, err)
		}
		if step%100 == 99 {
			must(t, file.Close())
			var err error
			file, err = f.Open(name)
			must(t, err)
			same(t, file, want, step)
			env.Uncached(file)
			env.Scattered(file)
		}
		if step%20 == 0 {
			same(t, file, want, step)
		}
	}
	must(t, file.Sync())
	must(t, file.Close())
	if err := env.WriteSync(file, buf[:512], 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteSync after Close: %v, want fs.ErrClosed", err)
	}
}

func same(t *testing.T, file env.File, want []byte, step int) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := file.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("after write %d the file differs from what was written", step)
	}
}

func missing(t *testing.T, f env.FS, dir string) {
	must(t, f.MkdirAll(dir))
	name := path.Join(dir, "none")
	_, openErr := f.Open(name)
	_, listErr := f.List(name)
	for what, err := range map[string]error{
		"Open": openErr, "List": listErr, "Remove": f.Remove(name), "Rename": f.Rename(name, name+"2"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a missing name: %v, want fs.ErrNotExist", what, err)
		}
	}
	file := mustCreate(t, f, path.Join(dir, "closed"))
	must(t, file.Close())
	if _, err := file.WriteAt([]byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteAt after Close: %v, want fs.ErrClosed", err)
	}
}
