//go:build linux

package main

import (
	"syscall"
	"testing"
	"time"
)

func mustCommand(t *testing.T, f *faults, line string) string {
	t.Helper()
	answer, err := f.command(line)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return answer
}

func TestCommands(t *testing.T) {
	f := newFaults()
	for _, line := range []string{"", "stall", "stall sync", "fail", "fail EIO", "fail EWHAT write", "full write", "stall write for ever", "heal"} {
		if _, err := f.command(line); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
	mustCommand(t, f, "fail EIO fsync write\n")
	mustCommand(t, f, "full")
	if f.before(opSync) != syscall.EIO || f.before(opWrite) != syscall.EIO || f.before(opRead) != 0 || !f.isFull() {
		t.Error("the faults are not what was asked for")
	}
	mustCommand(t, f, "clear")
	if f.before(opSync) != 0 || f.before(opWrite) != 0 || f.isFull() {
		t.Error("faults outlive clear")
	}
}

// What waits goes on with clear, or when the time is over, and is counted.
func TestStall(t *testing.T) {
	f := newFaults()
	for _, end := range []string{"clear", ""} {
		if end == "" {
			mustCommand(t, f, "stall fsync for 10ms")
		} else {
			mustCommand(t, f, "stall fsync")
		}
		done := make(chan syscall.Errno)
		go func() { done <- f.before(opSync) }()
		if end != "" {
			for deadline := time.Now().Add(10 * time.Second); mustCommand(t, f, "waiting") != "1"; {
				if time.Now().After(deadline) {
					t.Fatal("nothing waits")
				}
			}
			mustCommand(t, f, end)
		}
		if errno := <-done; errno != 0 {
			t.Errorf("error %v after the wait", errno)
		}
	}
	if n := mustCommand(t, f, "waiting"); n != "0" {
		t.Errorf("%s operations wait", n)
	}
}
