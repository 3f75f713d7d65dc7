// Package wirebuf keeps the buffers that gRPC reads and writes messages with.
// gRPC's own pool has few sizes and clears a buffer each time it is taken: a
// page of a list of 300 KB cost the clearing of 1 MB at both ends. Everything
// that takes a buffer fills the length it asked for, so nothing is cleared
// here, and sizes are powers of two.
package wirebuf

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	leastBits = 8  // 256 bytes; smaller ones are made
	mostBits  = 22 // 4 MB; larger ones are made and dropped
)

type pool struct {
	sizes [mostBits - leastBits + 1]sync.Pool
}

// Pool is the process's pool. Buffers have whatever bytes they had before.
var Pool mem.BufferPool = new(pool)

// Get returns a buffer of a length.
func (p *pool) Get(length int) *[]byte {
	if length < 1<<leastBits || length > 1<<mostBits {
		b := make([]byte, length)
		return &b
	}
	n := bits.Len(uint(length - 1))
	b, ok := p.sizes[n-leastBits].Get().(*[]byte)
	if !ok {
		made := make([]byte, 1<<n)
		b = &made
	}
	*b = (*b)[:length]
	return b
}

// Put takes a buffer back; those of another origin are dropped.
func (p *pool) Put(b *[]byte) {
	size := cap(*b)
	if size < 1<<leastBits || size > 1<<mostBits || size&(size-1) != 0 {
		return
	}
	p.sizes[bits.Len(uint(size))-1-leastBits].Put(b)
}
