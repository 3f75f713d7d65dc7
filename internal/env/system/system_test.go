package system_test

import (
	"testing"

	"kvstore/internal/env/system"
)

func TestMonoOnlyGrows(t *testing.T) {
	c := system.Clock()
	last := c.Mono()
	for range 1000 {
		now := c.Mono()
		if now < last {
			t.Fatalf("Mono went from %v back to %v", last, now)
		}
		last = now
	}
	if c.Wall() < 1_600_000_000_000 {
		t.Fatalf("Wall = %d, want Unix milliseconds", c.Wall())
	}
}

func TestRandDiffers(t *testing.T) {
	r := system.Rand()
	if a, b := r.Uint64(), r.Uint64(); a == b {
		t.Fatalf("two draws are equal: %d", a)
	}
}
