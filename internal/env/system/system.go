// Package system provides the real clock and random numbers behind the seams
// of package env.
package system

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"kvstore/internal/env"
)

// Clock returns the machine's clock.
func Clock() env.Clock { return clock{} }

// Rand returns the operating system's random numbers. It is safe for
// concurrent use.
func Rand() env.Rand { return random{} }

// start anchors Mono, so that wall clock jumps do not move it.
var start = time.Now()

type clock struct{}

func (clock) Wall() int64         { return time.Now().UnixMilli() }
func (clock) Mono() time.Duration { return time.Since(start) }

type random struct{}

// Uint64 never fails: crypto/rand.Read ends the process when the operating
// system has no randomness to give.
func (random) Uint64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
