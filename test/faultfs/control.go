//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"time"
)

// listen answers commands on a Unix socket until it is closed.
func listen(socket string, f *faults) (net.Listener, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go serve(conn, f)
		}
	}()
	return l, nil
}

// serve answers the one command of a connection.
func serve(conn net.Conn, f *faults) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	answer, err := f.command(line)
	if err != nil {
		answer = "error: " + err.Error()
	}
	_, _ = fmt.Fprintln(conn, answer)
}
