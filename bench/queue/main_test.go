package main

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// TestPeers: each peer delivers what was published.
func TestPeers(t *testing.T) {
	for _, p := range allPeers() {
		t.Run(p.name, func(t *testing.T) {
			in, err := p.open(t.TempDir() + "/data")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := in.close(); err != nil {
					t.Error(err)
				}
			}()
			const messages = 50
			for i := range messages {
				if err := in.publish(context.Background(), []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
			}
			var sum atomic.Int64
			var n atomic.Int64
			stop, err := in.subscribe(context.Background(), func(b []byte) { sum.Add(int64(b[0])); n.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
			for begin := time.Now(); n.Load() < messages && time.Since(begin) < 20*time.Second; {
				time.Sleep(time.Millisecond)
			}
			stop()
			if n.Load() != messages || sum.Load() != messages*(messages-1)/2 {
				t.Errorf("%d messages, sum %d", n.Load(), sum.Load())
			}
		})
	}
}
