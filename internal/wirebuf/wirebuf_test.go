package wirebuf

import "testing"

func TestSizes(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1 << 12, 1<<12 + 1, 1 << 22, 1<<22 + 1} {
		for range 3 {
			b := Pool.Get(n)
			if len(*b) != n {
				t.Fatalf("asked for %d bytes, got %d", n, len(*b))
			}
			short := (*b)[:n/2]
			Pool.Put(&short)
		}
	}
}

// Taking a buffer that is there costs nothing, however large.
func TestReuse(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Pool.Put(Pool.Get(300 << 10)) }); n >= 1 {
		t.Fatalf("%v allocations", n)
	}
}
