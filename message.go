package stile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// packer turns messages into bytes for one direction of a call, as grpc-go does.
type packer struct {
	codec messageCodec
	cp    grpc.Compressor     // deprecated interface; wins over comp
	comp  encoding.Compressor // nil: none

	lender transport.Lender // lends memory for large messages; nil: nobody does
}

// minLoan is the size from which a message is marshalled into lent memory and read
// where it lies, in bytes. A smaller one is copied for less than that costs.
const minLoan = 8 << 10

// packed is an encoded message. The zero value is empty; free makes it so again.
type packed struct {
	data       []byte
	size       int // before compression
	compressed byte
	slices     mem.BufferSlice
	flat       mem.Buffer
	buf        *wire.Buf

	lender transport.Lender // data is the loan's
	loan   transport.Loan
}

func (p *packed) free() {
	if p.lender != nil {
		p.lender.Return(p.loan)
	}
	if p.buf != nil {
		p.buf.Release()
	}
	if p.flat != nil {
		p.flat.Free()
	}
	p.slices.Free()
	*p = packed{}
}

// batch is what sends p as a message.
func (p *packed) batch() batch {
	b := batch{hasMsg: true, msg: p.data, gzipped: p.compressed}
	if p.lender != nil {
		b.lent = p
	}
	return b
}

// pack encodes and compresses m into p. Errors are gRPC statuses; p is then empty.
func (k *packer) pack(p *packed, m any) error {
	if _, ok := m.(*grpc.PreparedMsg); ok {
		return status.Error(codes.Internal, "stile: grpc.PreparedMsg cannot be sent on a local call; send the message itself")
	}
	if m == nil {
		return nil
	}
	if err := k.encode(p, m); err != nil {
		p.free()
		return status.Errorf(codes.Internal, "grpc: error while marshaling: %v", err.Error())
	}
	if uint64(p.size) > math.MaxUint32 {
		defer p.free()
		return status.Errorf(codes.ResourceExhausted, "grpc: message too large (%d bytes)", p.size)
	}
	if (k.cp == nil && k.comp == nil) || p.size == 0 {
		return nil
	}
	out, err := k.compress(p.data)
	size := p.size
	p.free()
	if err != nil {
		return status.Errorf(codes.Internal, "grpc: error while compressing: %v", err.Error())
	}
	p.data, p.size, p.compressed = out, size, 1
	return nil
}

// encode marshals m, with grpc-go's own codec straight into a pooled buffer.
func (k *packer) encode(p *packed, m any) error {
	if k.codec == protoCodec {
		if pm := protoMessage(m); pm != nil {
			return k.encodeProto(p, pm)
		}
	}
	slices, err := k.codec.Marshal(m)
	if err != nil {
		return err
	}
	p.slices, p.size = slices, slices.Len()
	switch len(slices) {
	case 0:
	case 1:
		p.data = slices[0].ReadOnlyData()
	default:
		p.flat = slices.MaterializeToBuffer(mem.DefaultBufferPool())
		p.data = p.flat.ReadOnlyData()
	}
	return nil
}

// encodeProto marshals into lent memory where that pays, else into a pooled buffer.
func (k *packer) encodeProto(p *packed, m proto.Message) error {
	vt, _ := m.(vtMarshaler)
	size := 0
	if vt != nil {
		size = vt.SizeVT()
	} else {
		size = proto.Size(m)
	}
	var room []byte
	if size >= minLoan && k.lender != nil && k.cp == nil && k.comp == nil {
		if loan, ok := k.lender.Lend(size); ok {
			p.lender, p.loan, room = k.lender, loan, loan.B
		}
	}
	if room == nil {
		p.buf = wire.GetBuf(size)
		room = p.buf.B
	}
	marshalled := false
	defer func() {
		if !marshalled { // the message's own code panicked
			p.free()
		}
	}()
	var data []byte
	var err error
	if vt != nil {
		data, err = marshalVT(vt, room)
	} else {
		data, err = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(room[:0], m)
	}
	marshalled = true
	p.data, p.size = data, len(data)
	if p.lender != nil && len(data) != size { // the message was changed meanwhile
		p.data = bytes.Clone(data)
		p.lender.Return(p.loan)
		p.lender = nil
	}
	return err
}

// vtMarshaler and vtUnmarshaler are what github.com/planetscale/vtprotobuf generates:
// methods that know the message's type, and need no reflection.
type (
	vtMarshaler interface {
		SizeVT() int
		MarshalToSizedBufferVT([]byte) (int, error)
	}
	vtUnmarshaler interface{ UnmarshalVT([]byte) error }
)

// marshalVT fills room, which has the message's size; the generated code writes from
// the end.
func marshalVT(m vtMarshaler, room []byte) ([]byte, error) {
	n, err := m.MarshalToSizedBufferVT(room)
	if err != nil {
		return nil, err
	}
	return room[len(room)-n:], nil
}

// protoMessage returns m as a message of the current protobuf API, or nil.
func protoMessage(m any) proto.Message {
	switch m := m.(type) {
	case proto.Message:
		return m
	case protoadapt.MessageV1:
		return protoadapt.MessageV2Of(m)
	}
	return nil
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
		if msg.borrowed() {
			data = bytes.Clone(data)
		}
		if data, err = u.decompress(data); err != nil {
			return 0, err
		}
	default:
		return 0, status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", msg.compressed)
	}
	if u.codec == protoCodec {
		if pm := protoMessage(m); pm != nil {
			if err := unmarshal(data, pm, msg.borrowed()); err != nil {
				return 0, unmarshalError(err)
			}
			return len(data), nil
		}
	}
	var slices mem.BufferSlice
	if msg.compressed == 0 {
		data = bytes.Clone(data) // a codec may keep what it is given
	}
	if len(data) > 0 {
		slices = mem.BufferSlice{mem.SliceBuffer(data)}
	}
	if err := u.codec.Unmarshal(slices, m); err != nil {
		return 0, unmarshalError(err)
	}
	return len(data), nil
}

// unmarshal is proto.Unmarshal. Of borrowed data the peer can change every byte
// between two looks: package proto checks every length against the slice it has, so
// the worst is a message that makes no sense, or a panic.
func unmarshal(data []byte, m proto.Message, borrowed bool) (err error) {
	if borrowed {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("the message was changed while it was read: %v", r)
			}
		}()
	}
	if vt, ok := m.(vtUnmarshaler); ok {
		proto.Reset(m)
		return vt.UnmarshalVT(data)
	}
	return proto.Unmarshal(data, m)
}

func unmarshalError(err error) error {
	return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
}

// protoCodec is grpc-go's own codec, which marshals and unmarshals as package
// proto does and keeps nothing of what it reads. It is nil where another codec
// has taken its name, which then does all the work.
var protoCodec = func() messageCodec {
	c := encoding.GetCodecV2("proto")
	if t := reflect.TypeOf(c); t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "google.golang.org/grpc/encoding/proto" {
		return c
	}
	return nil
}()

// closesReaders tells that grpc-go closes what decompresses, as it does from v1.82 on.
// Before, its gzip was done with a reader at the end of the data, where another call
// may have it already.
var closesReaders = func() bool {
	var major, minor int
	_, err := fmt.Sscanf(grpc.Version, "%d.%d", &major, &minor)
	return err != nil || major > 1 || minor >= 82
}()

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
	if c, ok := r.(io.Closer); ok && closesReaders {
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
