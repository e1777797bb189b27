package usage

import "testing"

func BenchmarkRead(b *testing.B) {
	m := NewMeter()
	b.ReportAllocs()
	for b.Loop() {
		m.Read()
	}
}
