package hub

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // exporters compress
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	errdetailspb "google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

const (
	// maxBody is how large a request to export may be, in bytes after decompression.
	maxBody = 16 << 20
	// patience is how long a request waits until it is its turn.
	patience = 5 * time.Second
	// comeAgain is when one that had no turn is to be sent again.
	comeAgain = time.Second
)

// Reasons for which requests are refused.
const (
	refusedBusy  = "too many at once"
	refusedToken = "no token that lets spans be sent"
	refusedLarge = "a body of more than 16 MiB"
	refusedBody  = "a body that is no request to export"
	refusedKind  = "an unknown content-type or content-encoding"
)

// turns are for requests that are decoded: as many at once as pay.
type turns struct {
	room     chan struct{}
	patience time.Duration
}

func newTurns() turns { return turns{make(chan struct{}, 2*runtime.GOMAXPROCS(0)), patience} }

var errBusy = errors.New(refusedBusy + ": try again in a second")

func (t turns) take(ctx context.Context) error {
	late := time.NewTimer(t.patience)
	defer late.Stop()
	select {
	case t.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return errBusy
	}
}

func (t turns) give() { <-t.room }

// decoder reads a request to export.
type decoder func(body []byte, take func(routemap.Span) error) (tracefile.Counts, error)

// export takes in a request's spans, all or none.
func (h *Hub) export(body []byte, decode decoder) (*batch, error) {
	b := h.intake.batch()
	counts, err := decode(body, b.take)
	if err != nil {
		return nil, err
	}
	for why, n := range counts.LeftOut {
		b.leftOut[why] += n
	}
	h.intake.add(b)
	return b, nil
}

// why says what was left out.
func (b *batch) why() string { return fmt.Sprintf("left out: %v", b.leftOut) }

// gRPC

// newGRPC returns the server of opentelemetry.proto.collector.trace.v1.TraceService. Its one method is a stream here, which is the same on the wire: so
// a request waits for its turn before it is read.
func (h *Hub) newGRPC() *grpc.Server {
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(maxBody), grpc.MaxConcurrentStreams(100), grpc.MaxHeaderListSize(32 << 10), grpc.ConnectionTimeout(10 * time.Second)}
	if h.cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(h.cfg.TLS)))
	}
	s := grpc.NewServer(opts...)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Export", ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return h.exportGRPC(stream) }}},
	}, nil)
	return s
}

func (h *Hub) exportGRPC(stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	authorization := ""
	if all := md.Get("authorization"); len(all) > 0 {
		authorization = all[0]
	}
	if err := h.access.allows(Write, authorization); err != nil {
		h.intake.refuse(refusedToken)
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if err := h.turns.take(stream.Context()); errors.Is(err, errBusy) {
		h.intake.refuse(refusedBusy)
		busy, err := status.New(codes.ResourceExhausted, err.Error()).WithDetails(&errdetailspb.RetryInfo{RetryDelay: durationpb.New(comeAgain)})
		if err != nil {
			return err
		}
		return busy.Err()
	} else if err != nil {
		return status.FromContextError(err).Err()
	}
	defer h.turns.give()
	request := new(emptypb.Empty) // all its fields are unknown, and left as they are
	if err := stream.RecvMsg(request); err != nil {
		switch status.Code(err) {
		case codes.ResourceExhausted:
			h.intake.refuse(refusedLarge)
		case codes.Internal, codes.Unknown:
			h.intake.refuse(refusedBody)
		}
		return err
	}
	b, err := h.export(request.ProtoReflect().GetUnknown(), tracefile.OTLP)
	if err != nil {
		h.intake.refuse(refusedBody)
		return status.Error(codes.InvalidArgument, err.Error())
	}
	answer := new(emptypb.Empty)
	answer.ProtoReflect().SetUnknown(b.partialSuccess())
	return stream.SendMsg(answer)
}

// partialSuccess is an ExportTraceServiceResponse that says what was left out.
func (b *batch) partialSuccess() []byte {
	n := b.rejected()
	if n == 0 {
		return nil
	}
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), n)
	partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), b.why())
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
}

// HTTP

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

func (h *Hub) otlpHTTP() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/traces", h.access.guard(Write, http.HandlerFunc(h.exportHTTP)))
	return mux
}

func (h *Hub) exportHTTP(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != typeProtobuf && kind != typeJSON {
		h.intake.refuse(refusedKind)
		http.Error(w, "the content-type has to be "+typeProtobuf+" or "+typeJSON, http.StatusUnsupportedMediaType)
		return
	}
	fail := func(code int, grpcCode codes.Code, text string) {
		answer(w, kind, code, &statuspb.Status{Code: int32(grpcCode), Message: text})
	}
	encoding := r.Header.Get("Content-Encoding")
	if encoding != "" && encoding != "identity" && encoding != "gzip" {
		h.intake.refuse(refusedKind)
		fail(http.StatusUnsupportedMediaType, codes.InvalidArgument, "the content-encoding has to be gzip, or none")
		return
	}
	if err := h.turns.take(r.Context()); err != nil {
		h.intake.refuse(refusedBusy)
		w.Header().Set("Retry-After", strconv.Itoa(int(comeAgain/time.Second)))
		fail(http.StatusTooManyRequests, codes.ResourceExhausted, err.Error())
		return
	}
	defer h.turns.give()
	body, err := readBody(r.Body, encoding == "gzip")
	if errors.Is(err, errLarge) {
		h.intake.refuse(refusedLarge)
		fail(http.StatusRequestEntityTooLarge, codes.InvalidArgument, refusedLarge+": send fewer spans at once")
		return
	}
	decode := tracefile.OTLP
	if kind == typeJSON {
		decode = tracefile.OTLPJSON
	}
	var b *batch
	if err == nil {
		b, err = h.export(body, decode)
	}
	if err != nil {
		h.intake.refuse(refusedBody)
		fail(http.StatusBadRequest, codes.InvalidArgument, refusedBody+": "+err.Error())
		return
	}
	if kind == typeProtobuf {
		write(w, kind, http.StatusOK, b.partialSuccess())
		return
	}
	text := []byte("{}")
	if n := b.rejected(); n > 0 {
		text = fmt.Appendf(nil, `{"partialSuccess":{"rejectedSpans":"%d","errorMessage":%q}}`, n, b.why())
	}
	write(w, kind, http.StatusOK, text)
}

var errLarge = errors.New(refusedLarge)

// readBody reads a body that is not too large, before and after decompression.
func readBody(r io.Reader, zipped bool) ([]byte, error) {
	if zipped {
		z, err := gzip.NewReader(io.LimitReader(r, maxBody+1))
		if err != nil {
			return nil, err
		}
		r = z
	}
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errLarge
	}
	return body, err
}

// answer says what is wrong as OTLP has it: in the encoding of the request.
func answer(w http.ResponseWriter, kind string, code int, s *statuspb.Status) {
	marshal := proto.Marshal
	if kind == typeJSON {
		marshal = protojson.Marshal
	}
	body, err := marshal(s)
	if err != nil {
		http.Error(w, s.GetMessage(), code)
		return
	}
	write(w, kind, code, body)
}

func write(w http.ResponseWriter, kind string, code int, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(code)
	_, _ = w.Write(body) // who asked may be gone
}
