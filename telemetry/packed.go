package telemetry

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
)

// AppendPacked appends the histogram in few bytes, as ReadPacked reads it: the count and, if it is not 0, sum, least value, the largest's difference to it, and
// each bucket that is not empty, up to that of the largest: how many empty ones come before it, doubled, and one more if its count follows, which is 1 else.
func (h *Histogram) AppendPacked(b []byte) []byte {
	b = binary.AppendUvarint(b, h.count)
	if h.count == 0 {
		return b
	}
	b = appendSum(b, h.sum)
	b = binary.AppendUvarint(b, h.least)
	b = binary.AppendUvarint(b, h.most-h.least)
	empty := uint64(0)
	for i := bucketOf(h.least); i <= bucketOf(h.most); i++ {
		switch n := h.counts[i-h.first]; n {
		case 0:
			empty++
			continue
		case 1:
			b = binary.AppendUvarint(b, empty<<1)
		default:
			b = binary.AppendUvarint(b, empty<<1|1)
			b = binary.AppendUvarint(b, n)
		}
		empty = 0
	}
	return b
}

// appendSum appends a sum, which is whole as long as it is exact.
func appendSum(b []byte, sum float64) []byte {
	if whole := uint64(sum); sum < 1<<53 && float64(whole) == sum {
		return binary.AppendUvarint(b, whole<<1)
	}
	return packed.AppendFloat(append(b, 1), sum)
}

func readSum(r *packed.Reader) float64 {
	u := r.Uint()
	if u&1 == 0 {
		return float64(u >> 1)
	}
	sum := r.Float()
	if u != 1 || !(sum >= 0) || math.IsInf(sum, 0) {
		r.Fail()
	}
	return sum
}

// ReadPacked reads what AppendPacked has written, in place of what the histogram has. What contradicts itself is damaged.
func (h *Histogram) ReadPacked(r *packed.Reader) {
	counts := h.counts[:0]
	*h = Histogram{}
	count := r.Uint()
	if count == 0 {
		return
	}
	sum, least := readSum(r), r.Uint()
	most := least + r.Uint()
	if most < least || most > math.MaxInt64 || r.Err() != nil {
		r.Fail()
		return
	}
	first, last := bucketOf(least), bucketOf(most)
	counts = slices.Grow(counts, last-first+1)[:last-first+1]
	clear(counts)
	total := uint64(0)
	for i := 0; i < len(counts); i++ {
		u := r.Uint()
		n := uint64(1)
		if u&1 == 1 {
			n = r.Uint()
		}
		if empty := u >> 1; n == 0 || empty >= uint64(len(counts)-i) || i == 0 && empty > 0 || n > count-total {
			r.Fail()
			return
		}
		i += int(u >> 1)
		counts[i] = n
		total += n
	}
	if total != count || r.Err() != nil {
		r.Fail()
		return
	}
	*h = Histogram{count: count, sum: sum, least: least, most: most, first: first, counts: counts}
}
