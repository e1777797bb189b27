package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	errdetailspb "google.golang.org/genproto/googleapis/rpc/errdetails"
)

// viaHeader names the hubs that a request has gone through, so that none goes in a circle.
const viaHeader = "stile-hub-via"

// maxAnswer is how much of a collector's answer is read, in bytes.
const maxAnswer = 64 << 10

// httpSender speaks OTLP over HTTP.
type httpSender struct {
	urls    [signals]string
	headers map[string]string
	client  *http.Client
}

func newHTTPSender(u *url.URL, f *Forward) *httpSender {
	s := &httpSender{headers: f.Headers, client: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: f.TLS, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: sending[traces] + sending[points] + sending[ownTraces], IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: maxAnswer, DialContext: (&net.Dialer{Timeout: forwardEach}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers are for no other host
	}}
	s.urls[traces], s.urls[points] = u.JoinPath("v1/traces").String(), u.JoinPath("v1/metrics").String()
	s.urls[ownTraces] = s.urls[traces]
	return s
}

func (s *httpSender) send(ctx context.Context, p *parcel) (rejected uint64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.urls[p.signal], bytes.NewReader(p.body))
	if err != nil {
		return 0, err
	}
	for name, value := range s.headers {
		r.Header.Set(name, value)
	}
	kind := typeProtobuf
	if p.json {
		kind = typeJSON
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("User-Agent", "stile-hub")
	r.Header.Set(viaHeader, p.via)
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, again{err, 0}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what is missing of it tells nothing
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return rejectedBy(body, strings.HasPrefix(resp.Header.Get("Content-Type"), typeJSON)), nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 0, again{errors.New(resp.Status), retryAfter(resp.Header.Get("Retry-After"))}
	}
	return 0, fmt.Errorf("%s: %.200q", resp.Status, body)
}

func (s *httpSender) close() error {
	s.client.CloseIdleConnections()
	return nil
}

// retryAfter reads seconds, or a time.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return time.Duration(min(n, int(forwardTries/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// rejectedBy is how many spans or data points a collector says that it has left out.
func rejectedBy(body []byte, inJSON bool) (n uint64) {
	if inJSON {
		var answer struct {
			PartialSuccess struct {
				RejectedSpans      json.Number `json:"rejectedSpans"`
				RejectedDataPoints json.Number `json:"rejectedDataPoints"`
			} `json:"partialSuccess"`
		}
		if json.Unmarshal(body, &answer) == nil {
			for _, of := range []json.Number{answer.PartialSuccess.RejectedSpans, answer.PartialSuccess.RejectedDataPoints} {
				if m, err := strconv.ParseUint(of.String(), 10, 64); err == nil {
					n += m
				}
			}
		}
		return n
	}
	number, kind, size := protowire.ConsumeTag(body)
	if size < 0 || number != 1 || kind != protowire.BytesType {
		return 0
	}
	partial, size := protowire.ConsumeBytes(body[size:])
	if size < 0 {
		return 0
	}
	if number, kind, size = protowire.ConsumeTag(partial); size < 0 || number != 1 || kind != protowire.VarintType {
		return 0
	}
	if n, size = protowire.ConsumeVarint(partial[size:]); size < 0 {
		return 0
	}
	return n
}

// grpcSender speaks OTLP over gRPC.
type grpcSender struct {
	cc      *grpc.ClientConn
	headers map[string]string
}

func newGRPCSender(u *url.URL, f *Forward) (*grpcSender, error) {
	if strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("gRPC's services have no path such as %q", u.Path)
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		creds = credentials.NewTLS(f.TLS)
	}
	cc, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(creds), grpc.WithUserAgent("stile-hub"), grpc.WithDisableRetry(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	return &grpcSender{cc, f.Headers}, err
}

func (s *grpcSender) send(ctx context.Context, p *parcel) (rejected uint64, err error) {
	body := p.body
	if p.json {
		if body, err = inProtobuf(p); err != nil {
			return 0, err
		}
	}
	for name, value := range s.headers {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, viaHeader, p.via)
	request, answer := new(emptypb.Empty), new(emptypb.Empty) // all their fields are unknown, and left as they are
	request.ProtoReflect().SetUnknown(body)
	service := tracesService
	if p.signal == points {
		service = metricsService
	}
	if err := s.cc.Invoke(ctx, "/"+service+"/Export", request, answer); err != nil {
		return 0, mayAgain(err)
	}
	return rejectedBy(answer.ProtoReflect().GetUnknown(), false), nil
}

func (s *grpcSender) close() error { return s.cc.Close() }

// mayAgain tells errors after which OTLP lets a request be sent again.
func mayAgain(err error) error {
	st := status.Convert(err)
	after := time.Duration(-1)
	for _, d := range st.Details() {
		if r, is := d.(*errdetailspb.RetryInfo); is {
			after = max(r.GetRetryDelay().AsDuration(), 0)
		}
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return again{err, max(after, 0)}
	case codes.ResourceExhausted:
		if after >= 0 {
			return again{err, after}
		}
	}
	return err
}

// hexIDs are IDs as OTLP's JSON has them, which protobuf's has in base64.
var hexIDs = regexp.MustCompile(`"(traceId|spanId|parentSpanId)"\s*:\s*"([0-9a-fA-F]*)"`)

// inProtobuf is a body that came in JSON.
func inProtobuf(p *parcel) ([]byte, error) {
	text := hexIDs.ReplaceAllFunc(p.body, func(m []byte) []byte {
		part := hexIDs.FindSubmatch(m)
		id, err := hex.DecodeString(string(part[2]))
		if err != nil {
			id = nil
		}
		return fmt.Appendf(nil, `"%s":"%s"`, part[1], base64.StdEncoding.EncodeToString(id))
	})
	data := proto.Message(new(tracepb.TracesData))
	if p.signal == points {
		data = new(metricspb.MetricsData)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, data); err != nil {
		return nil, err
	}
	return proto.Marshal(data)
}
