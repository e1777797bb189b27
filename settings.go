package stile

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
)

// defaultHeaderList is grpc-go's limit of a header list, in bytes.
const defaultHeaderList = 16 << 20

// settings is what a server tells its clients at the handshake.
type settings struct {
	maxStreams    uint32             // streams at a time on one connection; MaxUint32: no limit
	maxHeaderList uint32             // bytes of request metadata, counted as HTTP/2 does
	process       telemetry.Identity // zero: it is not said
	readsTraces   bool               // a wire.Trace in calls
}

// readsTraces is the bit of the settings' flags that says so.
const readsTraces = 1

func (s settings) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(s.maxStreams))
	b = binary.AppendUvarint(b, uint64(s.maxHeaderList))
	b = append(b, s.process[:]...)
	if s.readsTraces {
		b = binary.AppendUvarint(b, readsTraces)
	}
	return b
}

// parseSettings reads what encode wrote. Bytes after the known fields are a newer
// peer's and ignored.
func parseSettings(b []byte) (settings, error) {
	var v [2]uint64
	for i := range v {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > math.MaxUint32 {
			return settings{}, fmt.Errorf("%w: settings of %d bytes", transport.ErrProtocol, len(b))
		}
		v[i], b = n, b[k:]
	}
	if v[0] == 0 {
		return settings{}, fmt.Errorf("%w: settings allow no stream", transport.ErrProtocol)
	}
	s := settings{maxStreams: uint32(v[0]), maxHeaderList: uint32(v[1])}
	if len(b) >= len(s.process) { // earlier servers do not say it
		flags, _ := binary.Uvarint(b[copy(s.process[:], b):]) // 0 if they are not there
		s.readsTraces = flags&readsTraces != 0
	}
	return s, nil
}

// partsLimit is how many bytes of sections in pieces a connection holds, of which one
// has at most list bytes: several calls may send theirs at once.
func partsLimit(list int) int { return 2 * max(list, defaultHeaderList) }

// partTable gathers the pieces of sections too long for one frame. Its owner
// locks it.
type partTable struct {
	limit int // bytes over all streams
	size  int
	parts map[uint64]part
}

// part is what has come of a stream's sections.
type part struct {
	data []byte
	cost int // what it counts for
}

// partCost is what a piece costs beyond its bytes, about.
const partCost = 64

func (p *partTable) add(id uint64, b []byte) error {
	cost := len(b) + partCost
	if p.size+cost > p.limit {
		return errProtocol("header sections over %d bytes", p.limit)
	}
	if p.parts == nil {
		p.parts = map[uint64]part{}
	}
	p.size += cost
	old := p.parts[id]
	p.parts[id] = part{append(old.data, b...), old.cost + cost}
	return nil
}

// take returns the parts of id followed by last, or last itself.
func (p *partTable) take(id uint64, last []byte) []byte {
	first, ok := p.parts[id]
	if !ok {
		return last
	}
	p.drop(id)
	return append(first.data, last...)
}

func (p *partTable) drop(id uint64) {
	if p.size > 0 {
		p.size -= p.parts[id].cost
		delete(p.parts, id)
	}
}

func (p *partTable) clear() { p.parts, p.size = nil, 0 }
