package dev

import "os"

// alive reports whether a process exists.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}

// askToStop ends a process: there is no way to ask one that was started
// elsewhere.
func askToStop(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return os.ErrProcessDone
	}
	return p.Kill()
}

// askToStop ends the pipe that the child reads; there is no SIGTERM here.
func (ch *child) askToStop() error { return ch.pipe.Close() }
