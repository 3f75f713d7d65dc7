//go:build unix

package dev

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// alive reports whether a process runs. One that ended but was not waited for
// does not, as far as the system can tell (Linux).
func alive(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	// pid (name) state ...; the name may hold anything.
	state := stat[bytes.LastIndexByte(stat, ')')+1:]
	return !bytes.HasPrefix(state, []byte(" Z")) && !bytes.HasPrefix(state, []byte(" X"))
}

func askToStop(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// askToStop sends SIGTERM.
func (ch *child) askToStop() error { return ch.cmd.Process.Signal(syscall.SIGTERM) }
