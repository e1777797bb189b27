package near

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestExpiry(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name                  string
		put, fresh, stale, at time.Duration
		wantFresh, wantOK     bool
	}{
		{"at once", 5 * s, s, s, 5 * s, true, true},
		{"before it was put", 5 * s, s, s, 4 * s, true, true},
		{"last fresh moment", 5 * s, s, s, 6*s - 1, true, true},
		{"first stale moment", 5 * s, s, s, 6 * s, false, true},
		{"last stale moment", 5 * s, s, s, 7*s - 1, false, true},
		{"expired", 5 * s, s, s, 7 * s, false, false},
		{"never stale", 5 * s, s, 0, 6 * s, false, false},
		{"stale from the start", 5 * s, 0, s, 5 * s, false, true},
		{"not kept", 5 * s, 0, 0, 5 * s, false, false},
		{"negative", 5 * s, -s, s, 5 * s, false, true},
		{"for ever", 5 * s, math.MaxInt64, math.MaxInt64, math.MaxInt64 - 1, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCache(1 << 20)
			defer c.Close()
			key := []byte("k")
			c.Put(key, []byte("old"), 0, 100*s, 0)
			c.Put(key, []byte("v"), tt.put, tt.fresh, tt.stale)
			value, fresh, ok := c.Get(key, tt.at)
			if fresh != tt.wantFresh || ok != tt.wantOK || ok && string(value) != "v" {
				t.Errorf("got %q, fresh %v, ok %v", value, fresh, ok)
			}
			if n, size := c.Stats(); !ok && (n != 0 || size != 0) {
				t.Errorf("%d entries, %d bytes stay", n, size)
			}
		})
	}
}

// twin is a cache without a bound.
type twin map[string]struct {
	value        string
	fresh, stale time.Duration
}

func (w twin) get(key string, now time.Duration) (string, bool, bool) {
	e, there := w[key]
	if !there || now >= e.stale {
		return "", false, false
	}
	return e.value, now < e.fresh, true
}

func TestHistories(t *testing.T) {
	for _, maxBytes := range []int64{0, 100, 1000, 10_000, 1 << 30} {
		t.Run(fmt.Sprint(maxBytes), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(maxBytes)))
			c, w := NewCache(maxBytes), twin{}
			defer c.Close()
			var now time.Duration
			for i := range 30_000 {
				now += time.Duration(r.IntN(3))
				key := fmt.Sprint(r.IntN(100))
				if r.IntN(3) > 0 {
					value, fresh, ok := c.Get([]byte(key), now)
					want, wantFresh, there := w.get(key, now)
					if ok && (string(value) != want || fresh != wantFresh || !there) || maxBytes == 1<<30 && ok != there {
						t.Fatalf("%d: get %s: %q, %v, %v; want %q, %v, %v", i, key, value, fresh, ok, want, wantFresh, there)
					}
					continue
				}
				value := bytes.Repeat([]byte{byte(i)}, r.IntN(500))
				freshFor, staleFor := time.Duration(r.IntN(50)), time.Duration(r.IntN(50))
				e := w[key]
				e.value, e.fresh, e.stale = string(value), now+freshFor, now+freshFor+staleFor
				w[key] = e
				c.Put([]byte(key), value, now, freshFor, staleFor)
				n, size := c.Stats()
				if size > max(maxBytes, 0) || size < int64(n)*entryCost || (n == 0) != (size == 0) {
					t.Fatalf("%d: %d entries take %d bytes", i, n, size)
				}
			}
		})
	}
}

func TestSizes(t *testing.T) {
	c := NewCache(1000)
	defer c.Close()
	put := func(key string, length, capacity int) {
		c.Put([]byte(key), make([]byte, length, capacity), 0, 1, 0)
	}
	put("key", 10, 100)
	if n, size := c.Stats(); n != 1 || size != 3+100+entryCost {
		t.Errorf("%d entries take %d bytes", n, size)
	}
	put("key", 0, 1000-entryCost-3)
	if n, size := c.Stats(); n != 1 || size != 1000 {
		t.Errorf("as large as the cache: %d entries take %d bytes", n, size)
	}
	put("key", 0, 1000-entryCost-2)
	if n, size := c.Stats(); n != 0 || size != 0 {
		t.Errorf("too large: %d entries take %d bytes", n, size)
	}
}

func TestCollision(t *testing.T) {
	c := NewCache(1 << 20)
	defer c.Close()
	c.Put([]byte("one"), []byte("1"), 0, 1, 0)
	e, _ := c.table.GetIfPresent(c.hash([]byte("one")))
	c.table.Set(c.hash([]byte("two")), e)
	if value, _, ok := c.Get([]byte("two"), 0); ok {
		t.Errorf("another key's %q was found", value)
	}
	c.Put([]byte("two"), []byte("2"), 0, 1, 0)
	if value, _, ok := c.Get([]byte("two"), 0); !ok || string(value) != "2" {
		t.Errorf("got %q, %v", value, ok)
	}
}

func TestKeyIsCopied(t *testing.T) {
	c := NewCache(1 << 20)
	defer c.Close()
	key := []byte("key")
	c.Put(key, nil, 0, 1, 0)
	key[0] = 'x'
	if _, _, ok := c.Get([]byte("key"), 0); !ok {
		t.Error("lost with the caller's key")
	}
}

func TestClose(t *testing.T) {
	c := NewCache(1 << 20)
	for i := range 1000 {
		c.Put(fmt.Append(nil, i), nil, 0, 1, 0)
	}
	goleak.VerifyNone(t)
	c.Close()
	c.Close()
	c.Put([]byte("1"), nil, 0, 1, 0)
	if _, _, ok := c.Get([]byte("1"), 0); ok {
		t.Error("found after Close")
	}
	if n, size := c.Stats(); n != 0 || size != 0 {
		t.Errorf("%d entries, %d bytes stay", n, size)
	}
}

func TestConcurrentCache(t *testing.T) {
	const maxBytes = 20_000
	c := NewCache(maxBytes)
	defer c.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(g)))
			for range 5000 {
				key := fmt.Append(nil, r.IntN(200))
				now := time.Duration(r.IntN(100))
				switch r.IntN(8) {
				case 0, 1:
					c.Put(key, bytes.Repeat(key, r.IntN(100)), now, time.Duration(r.IntN(50)), time.Duration(r.IntN(50)))
				case 2:
					if _, size := c.Stats(); size > maxBytes {
						t.Errorf("%d bytes", size)
					}
				default:
					if value, _, ok := c.Get(key, now); ok && !bytes.Equal(value, bytes.Repeat(key, len(value)/len(key))) {
						t.Errorf("%s has the answer %q", key, value)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestHitAllocates(t *testing.T) {
	c := NewCache(1 << 20)
	defer c.Close()
	key := []byte("/shop.Catalog/Quote sku=12345678")
	c.Put(key, []byte("answer"), 0, 1, 0)
	if n := testing.AllocsPerRun(1000, func() { c.Get(key, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCache(b *testing.B) {
	const n = 4096
	keyOf := func(key []byte, i uint64) []byte {
		binary.LittleEndian.PutUint64(key[24:], i)
		return key
	}
	c := NewCache(1 << 24)
	defer c.Close()
	for i := range uint64(n) {
		c.Put(keyOf(make([]byte, 32), i), make([]byte, 100), 0, time.Hour, 0)
	}
	get := func(b *testing.B, from uint64, want bool) {
		b.ReportAllocs()
		key, i := make([]byte, 32), uint64(0)
		for b.Loop() {
			if _, _, ok := c.Get(keyOf(key, from+i%n), 0); ok != want {
				b.Fatal(ok)
			}
			i++
		}
	}
	b.Run("hit", func(b *testing.B) { get(b, 0, true) })
	b.Run("miss", func(b *testing.B) { get(b, n, false) })
	b.Run("hit,parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			key, i := make([]byte, 32), uint64(0)
			for p.Next() {
				c.Get(keyOf(key, i%n), 0)
				i++
			}
		})
	})
	b.Run("put,full", func(b *testing.B) {
		c := NewCache(1 << 20)
		defer c.Close()
		b.ReportAllocs()
		key, value, i := make([]byte, 32), make([]byte, 100), uint64(0)
		for b.Loop() {
			c.Put(keyOf(key, i), value, 0, time.Hour, 0)
			i++
		}
	})
}
