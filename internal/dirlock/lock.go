// Package dirlock keeps a second process off a directory. The system drops the
// lock when the process ends, however it ends.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrHeld is returned when another process holds the lock.
var ErrHeld = errors.New("directory is in use")

// Lock is a held lock.
type Lock struct{ f *os.File }

// Acquire locks dir by the file name in it, which it makes and leaves there.
// The file holds the pid of its last holder, for people.
func Acquire(dir, name string) (*Lock, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	ok, err := tryLock(f)
	if err == nil && ok {
		err = writePID(f)
	}
	if err == nil && ok {
		return &Lock{f}, nil
	}
	holder, _ := os.ReadFile(path) // the holder's pid is only a help
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, fmt.Errorf("%w: %s is held by process %s", ErrHeld, dir, strings.TrimSpace(string(holder)))
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return err
}

// Release gives the lock up.
func (l *Lock) Release() error {
	if err := l.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}
