package keyspace

import "testing"

func BenchmarkSlotOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		SlotOf(1, "user:12345:profile")
	}
}
