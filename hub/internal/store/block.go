package store

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/routemap"
)

// Why tells why a trace was kept.
type Why uint8

// Why traces are kept: as part of a sample in which each trace is as likely as any other, or because few are as slow, or have failed.
const (
	Sampled Why = 1 << iota
	Slow
	Failed
)

// Kept is a trace that is kept.
type Kept struct {
	*routemap.Timeline
	Why Why
}

// blockTraces is how many traces one block has. They share texts.
const blockTraces = 64

// blockVersion is the first byte of a block of traces: a checksum ends it.
const blockVersion = 1

// texts gives texts numbers, in the order in which they come.
type texts struct {
	numbers map[string]uint64
	all     []string
}

func (t *texts) number(s string) uint64 {
	n, known := t.numbers[s]
	if !known {
		n = uint64(len(t.all))
		t.numbers[s] = n
		t.all = append(t.all, s)
	}
	return n
}

// encodeBlock writes traces: version, texts, routes, then each trace with its spans, of which times are after the trace's start.
func encodeBlock(traces []Kept) []byte {
	names, routes := texts{numbers: map[string]uint64{}}, texts{numbers: map[string]uint64{}}
	names.number("")  // as no error has, and
	routes.number("") // no route
	var body []byte
	for _, t := range traces {
		body = packed.AppendID(body, t.ID)
		body = binary.AppendUvarint(body, uint64(t.Why))
		body = binary.AppendVarint(body, t.Start)
		body = binary.AppendUvarint(body, uint64(len(t.Spans)))
		for i := range t.Spans {
			body = appendSpan(body, i, &t.Spans[i], &names, &routes)
		}
	}
	out := binary.AppendUvarint([]byte{blockVersion}, uint64(len(names.all)))
	for _, s := range names.all {
		out = packed.AppendString(out, s)
	}
	out = binary.AppendUvarint(out, uint64(len(routes.all)))
	for _, id := range routes.all {
		out = packed.AppendID(out, id)
	}
	out = binary.AppendUvarint(out, uint64(len(traces)))
	return packed.Seal(append(out, body...))
}

func appendSpan(b []byte, i int, s *routemap.TimelineSpan, names, routes *texts) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.ID)
	up := 0 // how many spans before this one; none: it has no parent
	if s.Parent >= 0 {
		up = i - s.Parent
	}
	kind := uint64(s.Kind) << 1
	if s.Half {
		kind |= isHalf
	}
	w := s.Waits
	if w != nil {
		kind |= hasWaits
		if w.Far {
			kind |= isFar
		}
	}
	more := moreOf(s, names)
	if more != [moreParts]uint64{} {
		kind |= hasMore
	}
	for _, n := range []uint64{uint64(up), names.number(s.Service), names.number(s.Name), names.number(s.Error), routes.number(s.Route), kind, uint64(s.Start), uint64(s.Duration), uint64(len(s.Critical))} {
		b = binary.AppendUvarint(b, n)
	}
	if w != nil {
		for _, ns := range []int64{w.ClientQueue, w.Transport, w.ServerQueue, w.Handler} {
			b = binary.AppendUvarint(b, uint64(ns))
		}
	}
	if kind&hasMore != 0 {
		b = appendMore(b, &more)
	}
	from := s.Start
	for _, c := range s.Critical {
		b = binary.AppendVarint(b, c[0]-from)
		b = binary.AppendUvarint(b, uint64(c[1]-c[0]))
		from = c[1]
	}
	return b
}

// What a span's kind has beside it.
const (
	isHalf   = 1
	hasWaits = 1 << 4
	isFar    = 1 << 5
	hasMore  = 1 << 6
)

// moreParts is how many numbers moreOf has.
const moreParts = 13

// moreOf is what few spans have, or those alone that Stile has made: of most, most is 0.
func moreOf(s *routemap.TimelineSpan, names *texts) (all [moreParts]uint64) {
	all[0] = uint64(s.Weight)
	if c := s.Call; c != nil {
		all[1] = 1
		for i, ns := range []int64{c.Sent, c.Handling, c.Handled, c.Over, c.Limit, c.Slot, c.Window, c.Admission} {
			all[2+i] = uint64(ns)
		}
		all[10], all[11], all[12] = uint64(c.Try), uint64(c.End), names.number(c.Cause)
	}
	return all
}

// appendMore writes which are not 0, a bit each, and these.
func appendMore(b []byte, all *[moreParts]uint64) []byte {
	which := uint64(0)
	for i, n := range all {
		if n != 0 {
			which |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, which)
	for _, n := range all {
		if n != 0 {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// more reads what moreOf is.
func (r *blockReader) more(s *routemap.TimelineSpan) {
	which, all := r.Below(1<<moreParts), [moreParts]int64{}
	for i := range all {
		if which>>i&1 == 1 {
			all[i] = r.time()
		}
	}
	if max(all[0], all[10]) > math.MaxUint32 || all[1] > 1 || all[11] > int64(routemap.Lost) || all[12] >= int64(len(r.names)) {
		r.Fail()
		return
	}
	s.Weight = uint32(all[0])
	if all[1] == 1 {
		s.Call = &routemap.SpanCall{
			Sent: all[2], Handling: all[3], Handled: all[4], Over: all[5], Limit: all[6], Slot: all[7], Window: all[8], Admission: all[9],
			Try: uint32(all[10]), End: routemap.CallEnd(all[11]), Cause: r.names[all[12]],
		}
	}
}

// leastSpan and leastTrace are how many bytes each has, at least.
const (
	leastSpan  = 17
	leastTrace = 4
)

// blockReader reads a block's traces, one after the other.
type blockReader struct {
	packed.Reader
	names, routes []string
	left          int
}

func openBlock(data []byte) (*blockReader, error) {
	body, err := packed.Open(data)
	if err != nil || len(body) == 0 || body[0] != blockVersion {
		return nil, errDamaged
	}
	r := &blockReader{Reader: packed.NewReader(body[1:])}
	for range r.Count(1) {
		r.names = append(r.names, r.String())
	}
	for range r.Count(1) {
		r.routes = append(r.routes, r.ID())
	}
	r.left = r.Count(leastTrace)
	return r, r.damaged()
}

func (r *blockReader) damaged() error {
	if r.Err() != nil {
		return errDamaged
	}
	return nil
}

// next reads a trace; nil: there are no more.
func (r *blockReader) next() (*Kept, error) {
	if r.left == 0 {
		return nil, r.damaged()
	}
	r.left--
	t := &Kept{Timeline: &routemap.Timeline{ID: r.ID(), Failed: false}, Why: Why(r.Below(1 << 3))}
	t.Start = r.Int()
	t.Spans = make([]routemap.TimelineSpan, r.Count(leastSpan))
	for i := range t.Spans {
		s := &t.Spans[i]
		r.span(i, s)
		t.Failed = t.Failed || s.Error != ""
		t.Duration = max(t.Duration, s.Start+s.Duration)
	}
	return t, r.damaged()
}

// longest is more than any trace lasts, ns, and few enough to be added.
const longest = 1 << 60

func (r *blockReader) time() int64 { return int64(r.Below(longest)) }

func (r *blockReader) text(all []string) string {
	if i := r.Below(len(all)); i < len(all) {
		return all[i]
	}
	return ""
}

func (r *blockReader) span(i int, s *routemap.TimelineSpan) {
	s.ID, s.Parent = r.Uint64(), -1
	if up := r.Below(i + 1); up > 0 {
		s.Parent = i - up
	}
	s.Service, s.Name, s.Error, s.Route = r.text(r.names), r.text(r.names), r.text(r.names), r.text(r.routes)
	kind := r.Below(1 << 7)
	s.Kind, s.Half = routemap.Kind(kind>>1&7), kind&isHalf != 0
	s.Start, s.Duration = r.time(), r.time()
	from := s.Start
	parts := r.Count(2)
	if kind&hasWaits != 0 {
		s.Waits = &routemap.SpanWaits{Far: kind&isFar != 0, ClientQueue: r.time(), Transport: r.time(), ServerQueue: r.time(), Handler: r.time()}
	} else if kind&isFar != 0 {
		r.Fail()
	}
	if kind&hasMore != 0 {
		r.more(s)
	}
	for range parts {
		begin := from + min(max(r.Int(), -longest), longest)
		end := begin + r.time()
		if begin < 0 || end > longest {
			r.Fail()
			return
		}
		s.Critical = append(s.Critical, [2]int64{begin, end})
		from = end
	}
}

// has tells whether any of the routes is in the block.
func (r *blockReader) has(routes []string) bool {
	for _, id := range r.routes {
		if id != "" && slices.Contains(routes, id) {
			return true
		}
	}
	return false
}

// traceKey is a trace's ID, as the file has it.
func traceKey(id string) []byte {
	if raw, err := hex.DecodeString(id); err == nil {
		return raw
	}
	return []byte(id)
}
