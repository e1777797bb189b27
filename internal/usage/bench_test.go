package usage

import "testing"

func BenchmarkRead(b *testing.B) {
	m := NewMeter()
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		m.Read()
	}
}
