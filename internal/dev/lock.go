package dev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// dirLock keeps a second supervisor off a data directory. The system drops it
// when the process ends, however it ends.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	name := filepath.Join(dir, "dev.lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	ok, err := tryLock(f)
	if err == nil && ok {
		err = writePID(f)
	}
	if err != nil || !ok {
		holder, _ := os.ReadFile(name) // the holder's pid is only a help
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, fmt.Errorf("%w: %s is held by another `kvstore dev` (pid %s); stop it, or choose another with --data-dir", ErrInUse, dir, strings.TrimSpace(string(holder)))
	}
	return &dirLock{f}, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}

func (l *dirLock) release() error {
	if err := l.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}
