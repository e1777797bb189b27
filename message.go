package stile

import (
	"bytes"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// packer turns messages into bytes for one direction of a call, as grpc-go does.
type packer struct {
	codec messageCodec
	cp    grpc.Compressor     // deprecated interface; wins over comp
	comp  encoding.Compressor // nil: none
}

// packed is an encoded message. free gives its buffers back.
type packed struct {
	data       []byte
	size       int // before compression
	compressed byte
	slices     mem.BufferSlice
	flat       mem.Buffer
}

func (p *packed) free() {
	if p.flat != nil {
		p.flat.Free()
	}
	p.slices.Free()
	*p = packed{}
}

// pack encodes and compresses m. Errors are gRPC statuses.
func (k *packer) pack(m any) (packed, error) {
	if _, ok := m.(*grpc.PreparedMsg); ok {
		return packed{}, status.Error(codes.Internal, "stile: grpc.PreparedMsg cannot be sent on a local call; send the message itself")
	}
	if m == nil {
		return packed{}, nil
	}
	slices, err := k.codec.Marshal(m)
	if err != nil {
		return packed{}, status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err.Error())
	}
	p := packed{slices: slices, size: slices.Len()}
	if uint64(p.size) > math.MaxUint32 {
		slices.Free()
		return packed{}, status.Errorf(codes.ResourceExhausted, "grpc: message too large (%d bytes)", p.size)
	}
	switch len(slices) {
	case 0:
	case 1:
		p.data = slices[0].ReadOnlyData()
	default:
		p.flat = slices.MaterializeToBuffer(mem.DefaultBufferPool())
		p.data = p.flat.ReadOnlyData()
	}
	if (k.cp == nil && k.comp == nil) || p.size == 0 {
		return p, nil
	}
	defer p.free()
	out, err := k.compress(p.data)
	if err != nil {
		return packed{}, status.Errorf(codes.Internal, "grpc: error while compressing: %v", err.Error())
	}
	return packed{data: out, size: p.size, compressed: 1}, nil
}

func (k *packer) compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	if k.cp != nil {
		err := k.cp.Do(&out, data)
		return out.Bytes(), err
	}
	z, err := k.comp.Compress(&out)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unpacker turns received bytes into messages for one direction of a call.
type unpacker struct {
	codec    messageCodec
	encoding string            // the stream's grpc-encoding
	dc       grpc.Decompressor // deprecated interface; used when its type is encoding
	comp     encoding.Compressor
	limit    int
	server   bool
}

// setEncoding chooses the decompressor for what the peer says it sends.
func (u *unpacker) setEncoding(name string, dc grpc.Decompressor) {
	u.encoding = name
	switch {
	case name == "" || name == encoding.Identity:
	case dc != nil && dc.Type() == name:
		u.dc = dc
	default:
		u.comp = encoding.GetCompressor(name)
	}
}

// unpack decodes msg into m and returns the size after decompression. Errors are
// gRPC statuses. msg stays the caller's.
func (u *unpacker) unpack(msg *message, m any) (int, error) {
	data := msg.data
	switch msg.compressed {
	case 0:
	case 1:
		var err error
		if data, err = u.decompress(data); err != nil {
			return 0, err
		}
	default:
		return 0, status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", msg.compressed)
	}
	var slices mem.BufferSlice
	if !copyFree(u.codec) && msg.compressed == 0 {
		data = bytes.Clone(data) // a codec may keep what it is given
	}
	if len(data) > 0 {
		slices = mem.BufferSlice{mem.SliceBuffer(data)}
	}
	if err := u.codec.Unmarshal(slices, m); err != nil {
		return 0, status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return len(data), nil
}

// protoCodec is grpc-go's own codec, which keeps nothing of what it reads.
var protoCodec = encoding.GetCodecV2("proto")

func copyFree(c messageCodec) bool { return c == messageCodec(protoCodec) }

func (u *unpacker) decompress(data []byte) ([]byte, error) {
	switch {
	case u.encoding == "" || u.encoding == encoding.Identity:
		return nil, status.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	case u.dc != nil:
		out, err := u.dc.Do(bytes.NewReader(data))
		if err != nil {
			return nil, status.Errorf(codes.Internal, "grpc: failed to decompress the received message: %v", err)
		}
		if len(out) > u.limit {
			return nil, status.Errorf(codes.ResourceExhausted, "grpc: message after decompression larger than max (%d vs. %d)", len(out), u.limit)
		}
		return out, nil
	case u.comp == nil:
		code := codes.Internal
		if u.server {
			code = codes.Unimplemented
		}
		return nil, status.Errorf(code, "grpc: Decompressor is not installed for grpc-encoding %q", u.encoding)
	}
	r, err := u.comp.Decompress(bytes.NewReader(data))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: failed to decompress the message: %v", err)
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if int64(u.limit) < math.MaxInt64 {
		r = io.LimitReader(r, int64(u.limit)+1)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "grpc: failed to read decompressed data: %v", err)
	}
	if len(out) > u.limit {
		return nil, status.Errorf(codes.ResourceExhausted, "grpc: received message after decompression larger than max %d", u.limit)
	}
	return out, nil
}

// readError turns an error of inbox.readMessage into what grpc-go returns.
func readError(err error) error {
	var large *errTooLarge
	switch {
	case err == nil || err == io.EOF || errors.Is(err, errRefused):
		return err
	case errors.As(err, &large):
		return status.Error(codes.ResourceExhausted, large.Error())
	}
	return rpcError(err)
}
