package osfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/fstest"
)

func TestContract(t *testing.T) {
	t.Run("rooted", func(t *testing.T) { fstest.Run(t, New(t.TempDir()), ".") })
	t.Run("absolute", func(t *testing.T) { fstest.Run(t, New(""), filepath.ToSlash(t.TempDir())) })
}

// A full disk is recognizable whatever the system calls it, and stays a path
// error.
func TestFullDiskIsErrNoSpace(t *testing.T) {
	for _, code := range noSpaceCodes {
		err := fmt.Errorf("wrapped: %w", mark(&os.PathError{Op: "write", Path: "f", Err: code}))
		var p *os.PathError
		if !errors.Is(err, env.ErrNoSpace) || !errors.Is(err, code) || !errors.As(err, &p) {
			t.Errorf("%v: is %v, as %v", err, errors.Is(err, env.ErrNoSpace), p)
		}
	}
	if err := mark(os.ErrNotExist); errors.Is(err, env.ErrNoSpace) {
		t.Errorf("%v is ErrNoSpace", err)
	}
}
