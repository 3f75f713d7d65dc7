//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// operation of a disk that can go wrong.
type operation string

const (
	opSync  operation = "fsync" // of files and directories, msync too
	opWrite operation = "write" // also what the kernel writes back of mapped files
	opRead  operation = "read"
)

var operations = []operation{opSync, opWrite, opRead}

// errors that a disk reports, by name.
var errnos = map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS}

// faults are what is wrong with the disk now. Commands:
//
//	stall OP...         OP waits until clear
//	fail ERRNO OP...    OP fails with EIO, ENOSPC or EROFS
//	full                there is no space: nothing new can be made, no file
//	                    grows, and statfs says so; what is allocated can be written
//	clear               the disk is well
//	waiting             answers how many operations wait for clear
//
// OP is fsync, write or read. "for DURATION" at the end of a command undoes all
// faults after that time.
type faults struct {
	mu      sync.Mutex
	stalled map[operation]bool
	gate    chan struct{} // closed by clear
	failing map[operation]syscall.Errno
	full    bool
	waiting int
	until   *time.Timer
}

func newFaults() *faults {
	f := &faults{}
	f.reset()
	return f
}

// reset; mu is held, or nobody knows f.
func (f *faults) reset() {
	f.stalled, f.gate = map[operation]bool{}, make(chan struct{})
	f.failing, f.full = map[operation]syscall.Errno{}, false
	if f.until != nil {
		f.until.Stop()
		f.until = nil
	}
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.gate)
	f.reset()
}

// before an operation: it waits, fails, or goes on. A signal to the caller does
// not end the wait, as on a disk.
func (f *faults) before(op operation) syscall.Errno {
	f.mu.Lock()
	for f.stalled[op] {
		gate := f.gate
		f.waiting++
		f.mu.Unlock()
		<-gate
		f.mu.Lock()
		f.waiting--
	}
	errno := f.failing[op]
	f.mu.Unlock()
	return errno
}

// isFull reports whether there is no space.
func (f *faults) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.full
}

// command executes a line and returns the answer.
func (f *faults) command(line string) (string, error) {
	words := strings.Fields(line)
	var lasts time.Duration
	if n := len(words); n > 2 && words[n-2] == "for" {
		var err error
		if lasts, err = time.ParseDuration(words[n-1]); err != nil {
			return "", err
		}
		words = words[:n-2]
	}
	if len(words) == 0 {
		return "", fmt.Errorf("no command")
	}
	if words[0] == "clear" {
		f.clear()
		return "ok", nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if words[0] == "waiting" {
		return fmt.Sprint(f.waiting), nil
	}
	if err := f.inject(words[0], words[1:]); err != nil {
		return "", err
	}
	if lasts > 0 {
		if f.until != nil {
			f.until.Stop()
		}
		f.until = time.AfterFunc(lasts, f.clear)
	}
	return "ok", nil
}

// inject begins a fault; mu is held.
func (f *faults) inject(kind string, words []string) error {
	switch {
	case kind == "full" && len(words) == 0:
		f.full = true
		return nil
	case kind == "stall":
		ops, err := parseOperations(words)
		for _, op := range ops {
			f.stalled[op] = true
		}
		return err
	case kind == "fail" && len(words) > 0:
		errno, known := errnos[words[0]]
		if !known {
			return fmt.Errorf("unknown error %q", words[0])
		}
		ops, err := parseOperations(words[1:])
		for _, op := range ops {
			f.failing[op] = errno
		}
		return err
	}
	return fmt.Errorf("unknown command %q", kind)
}

func parseOperations(words []string) ([]operation, error) {
	ops := make([]operation, 0, len(words))
	for _, w := range words {
		if !slices.Contains(operations, operation(w)) {
			return nil, fmt.Errorf("unknown operation %q", w)
		}
		ops = append(ops, operation(w))
	}
	if len(ops) == 0 {
		return nil, fmt.Errorf("no operation is named")
	}
	return ops, nil
}
