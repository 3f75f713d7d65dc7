//go:build unix

package ctl

import (
	"os"
	"syscall"
)

// passedOn are the signals that a command under a lock is sent.
var passedOn = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// ofTerminal reports whether a terminal sends the signal to all in the foreground.
func ofTerminal(sig os.Signal) bool { return sig == os.Interrupt || sig == syscall.SIGQUIT }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// codeOf is the exit code, of a process that a signal ended that of shells.
func codeOf(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
