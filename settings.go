package stile

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/stile-ipc/stile/transport"
)

// defaultHeaderList is grpc-go's limit of a header list, in bytes.
const defaultHeaderList = 16 << 20

// settings is what a server tells its clients at the handshake.
type settings struct {
	maxStreams    uint32 // streams at a time on one connection; MaxUint32: no limit
	maxHeaderList uint32 // bytes of request metadata, counted as HTTP/2 does
}

func (s settings) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(s.maxStreams))
	return binary.AppendUvarint(b, uint64(s.maxHeaderList))
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
	return settings{maxStreams: uint32(v[0]), maxHeaderList: uint32(v[1])}, nil
}

// partTable gathers the pieces of sections too long for one frame. Its owner
// locks it.
type partTable struct {
	limit int // bytes over all streams
	size  int
	parts map[uint64][]byte
}

func (p *partTable) add(id uint64, b []byte) error {
	if p.size+len(b) > p.limit {
		return errProtocol("header sections over %d bytes", p.limit)
	}
	if p.parts == nil {
		p.parts = map[uint64][]byte{}
	}
	p.size += len(b)
	p.parts[id] = append(p.parts[id], b...)
	return nil
}

// take returns the parts of id followed by last, or last itself.
func (p *partTable) take(id uint64, last []byte) []byte {
	b, ok := p.parts[id]
	if !ok {
		return last
	}
	p.drop(id)
	return append(b, last...)
}

func (p *partTable) drop(id uint64) {
	p.size -= len(p.parts[id])
	delete(p.parts, id)
}

func (p *partTable) clear() { p.parts, p.size = nil, 0 }
