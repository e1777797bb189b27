package near

import (
	"bytes"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

// entryCost is what an entry takes beside its key and value, in bytes: 64 for the
// entry, about 90 for otter's node and table, and what the allocator rounds up.
const entryCost = 192

// Cache keeps answers within a bound of bytes. When it is full, those go that are
// least likely to be asked for again, which may include the one just put; until then
// an answer is there from the moment Put returns. No goroutine outlives the call of a
// method. All methods are safe for concurrent use.
//
// Times are since an epoch of the caller's choice. Expiry is judged by them alone.
type Cache struct {
	seeds [2]maphash.Seed
	limit int64 // of one entry
	table *otter.Cache[hash, *entry]

	mu     sync.Mutex // held by whoever changes table
	closed bool
}

// hash finds an entry.
type hash struct{ a, b uint64 }

// entry is an answer. It does not change.
type entry struct {
	key, value []byte
	freshUntil time.Duration
	staleUntil time.Duration
}

// size counts the capacity of the value: all of it stays because of the entry.
func (e *entry) size() int64 { return int64(len(e.key)) + int64(cap(e.value)) + entryCost }

// NewCache returns a cache whose entries take maxBytes in all, their keys and 192
// bytes for each counted in. While a Put is under way, its entry comes on top.
func NewCache(maxBytes int64) *Cache {
	return &Cache{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		limit: min(maxBytes, math.MaxUint32),
		table: otter.Must(&otter.Options[hash, *entry]{
			MaximumWeight: uint64(max(maxBytes, 1)),
			Weigher:       func(_ hash, e *entry) uint32 { return uint32(e.size()) },
			Executor:      func(f func()) { f() },
		}),
	}
}

// Close drops all entries. After it nothing is found and Put does nothing.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.table.InvalidateAll()
	c.table.CleanUp()
}

func (c *Cache) hash(key []byte) hash {
	return hash{maphash.Bytes(c.seeds[0], key), maphash.Bytes(c.seeds[1], key)}
}

// Get returns the answer that was put for key. ok tells that it is there and fresh,
// or stale but still to be had. The caller must not change value.
func (c *Cache) Get(key []byte, now time.Duration) (value []byte, fresh, ok bool) {
	h := c.hash(key)
	e, found := c.table.GetIfPresent(h)
	switch {
	case !found || !bytes.Equal(e.key, key):
		return nil, false, false
	case now >= e.staleUntil:
		c.drop(h, e)
		return nil, false, false
	}
	return e.value, now < e.freshUntil, true
}

// drop removes e if it is still there.
func (c *Cache) drop(h hash, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, found := c.table.GetEntryQuietly(h); found && at.Value == e {
		c.table.Invalidate(h)
	}
}

// Put keeps value for key, in place of what was kept for it: fresh for freshFor, and
// stale for staleFor after that. A value that is larger than the cache, or expired
// at once, is not kept. Put copies key and takes value over: nobody may change it
// any more. A value counts by its capacity.
func (c *Cache) Put(key, value []byte, now, freshFor, staleFor time.Duration) {
	h := c.hash(key)
	e := &entry{key: bytes.Clone(key), value: value, freshUntil: later(now, freshFor)}
	e.staleUntil = later(e.freshUntil, staleFor)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if now >= e.staleUntil || e.size() > c.limit {
		c.table.Invalidate(h)
	} else {
		c.table.Set(h, e)
	}
	c.table.CleanUp() // evicts now what is over the bound
}

// later returns t+d, or the last time there is. A negative d is none.
func later(t, d time.Duration) time.Duration {
	d = max(d, 0)
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// Stats returns how many entries there are and the bytes they take. Entries that
// have expired count until they are asked for, replaced or evicted.
func (c *Cache) Stats() (entries int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table.CleanUp()
	return c.table.EstimatedSize(), int64(c.table.WeightedSize())
}
