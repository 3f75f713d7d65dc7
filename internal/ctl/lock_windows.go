package ctl

import "os"

// passedOn are the signals that a command under a lock is sent: none, since a
// console tells all its processes itself.
var passedOn = []os.Signal{os.Interrupt}

func ofTerminal(os.Signal) bool { return true }

// terminate ends the process at once: there is no gentler way.
func terminate(p *os.Process) error { return p.Kill() }

func codeOf(s *os.ProcessState) int { return s.ExitCode() }
