package routemap

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
)

// queuesVersion is the first byte of what PackQueues writes.
const queuesVersion = 1

const leastQueue = 4 + 3 + 18 + 5 // bytes of one at least: texts, numbers

// PackQueues is what is known of queues, in bytes with a checksum.
func PackQueues(all map[QueueKey]*QueueStats) []byte {
	keys := slices.SortedFunc(maps.Keys(all), func(a, b QueueKey) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Group, b.Group))
	})
	b := binary.AppendUvarint([]byte{queuesVersion}, uint64(len(keys)))
	for _, k := range keys {
		s := all[k]
		for _, name := range []string{k.Topic, k.Group, s.Where, s.Host} {
			b = packed.AppendString(b, name)
		}
		b = binary.AppendVarint(b, k.Created)
		b = binary.AppendVarint(b, s.At)
		b = binary.AppendVarint(b, s.Grown)
		for _, n := range s.counts() {
			b = binary.AppendUvarint(b, *n)
		}
		for _, n := range s.times() {
			b = binary.AppendUvarint(b, uint64(*n))
		}
	}
	return packed.Seal(b)
}

// UnpackQueues reads what PackQueues has written.
func UnpackQueues(data []byte) (map[QueueKey]*QueueStats, error) {
	b, err := packed.Open(data)
	if err != nil {
		return nil, err
	}
	r := packed.NewReader(b)
	if v := r.Uint(); v != queuesVersion {
		return nil, packed.ErrDamaged
	}
	all := map[QueueKey]*QueueStats{}
	for range r.Count(leastQueue) {
		var k QueueKey
		s := new(QueueStats)
		k.Topic, k.Group, s.Where, s.Host = r.String(), r.String(), r.String(), r.String()
		k.Created, s.At, s.Grown = r.Int(), r.Int(), r.Int()
		for _, n := range s.counts() {
			*n = r.Uint()
		}
		for _, n := range s.times() {
			*n = readTime(&r)
		}
		all[k] = s
	}
	return all, r.End()
}

func (s *QueueStats) counts() []*uint64 {
	return []*uint64{
		&s.Windows, &s.Messages, &s.Bytes, &s.MaxBytes, &s.Delayed, &s.Lag, &s.InFlight, &s.Retrying, &s.Dead, &s.MostLag, &s.MostBytes, &s.Published, &s.Handled, &s.Refused,
		&s.Full, &s.Head, &s.Tail, &s.Growing,
	}
}

func (s *QueueStats) times() []*int64 {
	return []*int64{&s.Oldest, &s.MostOldest, &s.Measured, &s.Blocked, &s.Told}
}
