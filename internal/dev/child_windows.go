package dev

import "syscall"

// childAttributes: a process group of its own, so that a Ctrl-C of the console
// reaches the supervisor only.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
