package hub

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
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

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

const (
	// maxBody is how large a request to export may be, in bytes after decompression.
	maxBody = 16 << 20
	// maxJSON is how large one in JSON may be: what it is decoded to is larger than what protobuf is.
	maxJSON = 4 << 20
	// patience is how long a request waits until it is its turn.
	patience = 5 * time.Second
	// readWithin is how long one may take to come.
	readWithin = 10 * time.Second
	// reading is how many may come at once.
	reading = 64
	// comeAgain is when one that had no turn is to be sent again.
	comeAgain = time.Second
)

// Reasons for which requests are refused.
const (
	refusedBusy   = "too many at once"
	refusedToken  = "no token that lets spans be sent"
	refusedLarge  = "a body of more than 16 MiB, or 4 MiB of JSON"
	refusedBody   = "a body that is no request to export"
	refusedKind   = "an unknown content-type or content-encoding"
	refusedSlow   = "a body that did not come within 10 s"
	refusedAround = "a body that this hub has forwarded, and that came around"
	refusedFull   = "more spans than there is room for until they are on the map"
)

// turns are for what is done at no more than some places at once.
type turns struct {
	room     chan struct{}
	patience time.Duration
}

func newTurns(places int, patience time.Duration) turns {
	return turns{make(chan struct{}, places), patience}
}

// decoding is how many requests are decoded at once: as many as pay.
func decoding() int { return 2 * runtime.GOMAXPROCS(0) }

// busy is an error of what is refused now, for this reason, and may come again.
type busy string

func (b busy) Error() string { return string(b) + ": try again in a second" }

var errBusy, errFull error = busy(refusedBusy), busy(refusedFull)

// comesAgain tells whether an error is one of what may come again: a busy one, or the end of who has asked.
func comesAgain(err error) bool {
	var b busy
	return errors.As(err, &b) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

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

// export takes in a request and returns what its exporter is to be told. Of one that cannot be read, or for which there is no room, no span counts, and of data points
// those before the fault.
type export func(context.Context, *incoming) (told, error)

// incoming is a request to export.
type incoming struct {
	body []byte
	json bool
	via  string // the hubs that it has gone through
}

// told is how much of a request was left out, and why.
type told struct {
	leftOut map[string]uint64
	what    string // as OTLP's JSON calls how many
}

// once takes in what has not been here before.
func (h *Hub) once(ctx context.Context, take export, r *incoming) (told, error) {
	if h.forward.knows(r.via) {
		h.intake.refuse(refusedAround)
		return told{}, nil
	}
	return take(ctx, r)
}

func (h *Hub) exportTraces(ctx context.Context, r *incoming) (told, error) {
	b, decode := h.intake.batch(), tracefile.OTLP
	if r.json {
		decode = tracefile.OTLPJSON
	}
	counts, err := decode(r.body, b.take)
	if err != nil {
		return told{}, err
	}
	for why, n := range counts.LeftOut {
		b.leftOut[why] += n
	}
	if err := h.intake.add(ctx, b); err != nil {
		return told{}, err
	}
	h.forward.offer(parcel{traces, r.body, r.json, r.via})
	return told{b.leftOut, "rejectedSpans"}, nil
}

func (h *Hub) exportMetrics(_ context.Context, r *incoming) (told, error) {
	decode := tracefile.OTLPMetrics
	if r.json {
		decode = tracefile.OTLPMetricsJSON
	}
	b := batchOfPoints{to: h.agents.measured, leftOut: map[string]uint64{}}
	counts, err := decode(r.body, b.take)
	leftOut := b.end(counts)
	if err != nil {
		return told{}, err
	}
	h.forward.offer(parcel{points, r.body, r.json, r.via})
	return told{leftOut, "rejectedDataPoints"}, nil
}

// rejected is how many were left out.
func (t told) rejected() (n uint64) {
	for _, of := range t.leftOut {
		n += of
	}
	return n
}

// why says what was left out, such as "left out: 1 no time; 2 not a span".
func (t told) why() string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(t.leftOut)) {
		parts = append(parts, fmt.Sprintf("%d %s", t.leftOut[why], why))
	}
	return "left out: " + strings.Join(parts, "; ")
}

// gRPC

// OTLP's services.
const (
	tracesService  = "opentelemetry.proto.collector.trace.v1.TraceService"
	metricsService = "opentelemetry.proto.collector.metrics.v1.MetricsService"
)

// newGRPC returns the server of OTLP's services and stile.hub.v1.Agents. Their methods are streams here, which is the same on
// the wire: so a request waits for its turn before it is read.
func (h *Hub) newGRPC(security *tls.Config) *grpc.Server {
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(maxBody), grpc.MaxConcurrentStreams(100), grpc.MaxHeaderListSize(32 << 10), grpc.ConnectionTimeout(10 * time.Second), grpc.WaitForHandlers(true)}
	if security != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(security)))
	}
	s := grpc.NewServer(opts...)
	for name, take := range map[string]export{tracesService: h.exportTraces, metricsService: h.exportMetrics} {
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: name, HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{{StreamName: "Export", ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return h.exportGRPC(stream, take) }}},
		}, nil)
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: hubpb.Agents_ServiceDesc.ServiceName, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Report", ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error { return h.reportGRPC(stream) }}},
	}, nil)
	return s
}

// requestGRPC returns the body of a request, when its turn to be decoded has come, which is to be given back.
func (h *Hub) requestGRPC(stream grpc.ServerStream) ([]byte, error) {
	md, _ := metadata.FromIncomingContext(stream.Context())
	authorization := ""
	if all := md.Get("authorization"); len(all) > 0 {
		authorization = all[0]
	}
	if err := h.access.allows(Write, authorization); err != nil {
		h.intake.refuse(refusedToken)
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if err := h.reading.take(stream.Context()); err != nil {
		return nil, h.busyGRPC(err)
	}
	body, err := h.receive(stream)
	h.reading.give()
	if err != nil {
		return nil, err
	}
	if err := h.decoding.take(stream.Context()); err != nil {
		return nil, h.busyGRPC(err)
	}
	return body, nil
}

func (h *Hub) exportGRPC(stream grpc.ServerStream, take export) error {
	body, err := h.requestGRPC(stream)
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	of, err := h.once(stream.Context(), take, &incoming{body, false, strings.Join(md.Get(viaHeader), ",")})
	h.decoding.give()
	switch {
	case comesAgain(err):
		return h.busyGRPC(err)
	case err != nil:
		h.intake.refuse(refusedBody)
		return status.Error(codes.InvalidArgument, err.Error())
	}
	answer := new(emptypb.Empty)
	answer.ProtoReflect().SetUnknown(of.partialSuccess())
	return stream.SendMsg(answer)
}

// busyGRPC tells who has no turn, or no room, when to come again. Of the other codes that OTLP lets come again are those of who has given up.
func (h *Hub) busyGRPC(err error) error {
	var why busy
	if !errors.As(err, &why) {
		return status.FromContextError(err).Err()
	}
	h.intake.refuse(string(why))
	later, err := status.New(codes.ResourceExhausted, err.Error()).WithDetails(&errdetailspb.RetryInfo{RetryDelay: durationpb.New(comeAgain)})
	if err != nil {
		return err
	}
	return later.Err()
}

// receive reads a request, if it comes in time. One that does not ends with the stream.
func (h *Hub) receive(stream grpc.ServerStream) ([]byte, error) {
	request := new(emptypb.Empty) // all its fields are unknown, and left as they are
	received := make(chan error, 1)
	go func() { received <- stream.RecvMsg(request) }()
	late := time.NewTimer(h.cfg.readWithin)
	defer late.Stop()
	select {
	case err := <-received:
		switch status.Code(err) {
		case codes.OK:
			return request.ProtoReflect().GetUnknown(), nil
		case codes.ResourceExhausted:
			h.intake.refuse(refusedLarge)
		case codes.Internal, codes.Unknown:
			h.intake.refuse(refusedBody)
		}
		return nil, err
	case <-late.C:
		h.intake.refuse(refusedSlow)
		return nil, status.Error(codes.DeadlineExceeded, refusedSlow)
	}
}

// partialSuccess is an ExportTraceServiceResponse that says what was left out, or one for metrics, which is the same on the wire.
func (t told) partialSuccess() []byte {
	n := t.rejected()
	if n == 0 {
		return nil
	}
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), n)
	partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), t.why())
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
}

// HTTP

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

func (h *Hub) otlpHTTP() http.Handler {
	mux := http.NewServeMux()
	for path, take := range map[string]export{"/v1/traces": h.exportTraces, "/v1/metrics": h.exportMetrics} {
		mux.Handle("POST "+path, h.access.guard(Write, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.exportHTTP(w, r, take) })))
	}
	return mux
}

func (h *Hub) exportHTTP(w http.ResponseWriter, r *http.Request, take export) {
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
	later := func(err error) {
		why := busy(refusedBusy)
		_ = errors.As(err, &why) // or who asks has given up
		h.intake.refuse(string(why))
		w.Header().Set("Retry-After", strconv.Itoa(int(comeAgain/time.Second)))
		fail(http.StatusTooManyRequests, codes.ResourceExhausted, err.Error())
	}
	if err := h.reading.take(r.Context()); err != nil {
		later(err)
		return
	}
	most := int64(maxBody)
	if kind == typeJSON {
		most = maxJSON
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.cfg.readWithin)) // else the server's own counts
	body, err := readBody(r.Body, encoding == "gzip", most)
	h.reading.give()
	switch {
	case errors.Is(err, errLarge):
		h.intake.refuse(refusedLarge)
		fail(http.StatusRequestEntityTooLarge, codes.InvalidArgument, refusedLarge+": send less at once")
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		h.intake.refuse(refusedSlow)
		fail(http.StatusRequestTimeout, codes.DeadlineExceeded, refusedSlow)
		return
	}
	var of told
	if err == nil {
		if err := h.decoding.take(r.Context()); err != nil {
			later(err)
			return
		}
		of, err = h.once(r.Context(), take, &incoming{body, kind == typeJSON, strings.Join(r.Header.Values(viaHeader), ",")})
		h.decoding.give()
	}
	switch {
	case comesAgain(err):
		later(err)
		return
	case err != nil:
		h.intake.refuse(refusedBody)
		fail(http.StatusBadRequest, codes.InvalidArgument, refusedBody+": "+err.Error())
		return
	}
	if kind == typeProtobuf {
		write(w, kind, http.StatusOK, of.partialSuccess())
		return
	}
	text := []byte("{}")
	if n := of.rejected(); n > 0 {
		text = fmt.Appendf(nil, `{"partialSuccess":{%q:"%d","errorMessage":%q}}`, of.what, n, of.why())
	}
	write(w, kind, http.StatusOK, text)
}

var errLarge = errors.New(refusedLarge)

// readBody reads a body that has no more than most bytes when it is unzipped.
func readBody(r io.Reader, zipped bool, most int64) ([]byte, error) {
	if zipped {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	body, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(body)) > most {
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
