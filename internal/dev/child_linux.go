package dev

import "syscall"

// childAttributes: killed with the supervisor, and in a process group of its
// own, so that a Ctrl-C of the terminal reaches the supervisor only.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
