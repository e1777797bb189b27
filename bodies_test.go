package stile

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/internal/values"
	"github.com/stile-ipc/stile/telemetry"
)

// says is a message with a text, and perhaps a blob.
func says(text string, blob ...byte) *pb.SimpleRequest {
	return &pb.SimpleRequest{FillUsername: true, Payload: &pb.Payload{Body: blob}, ResponseStatus: &pb.EchoStatus{Message: text}}
}

// asks is a server whose UnaryCall is what it is told.
type asks struct {
	echo
	do func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error)
}

func (a *asks) UnaryCall(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return a.do(ctx, req)
}

// parroting answers with a text that begins with what it was asked, so that each answer says something new.
func parroting(_ context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	text := req.GetResponseStatus().GetMessage()
	if text == "nothing" {
		return &pb.SimpleResponse{}, nil
	}
	return &pb.SimpleResponse{Username: "re-" + text}, nil
}

// bodiesOf are what was seen, by side, the notes as side "note".
func bodiesOf(all []*spans.Span) map[string][]*spans.Span {
	out := map[string][]*spans.Span{}
	for _, s := range all {
		side := "note"
		if !s.Note {
			side = map[telemetry.Side]string{telemetry.Client: "client", telemetry.Server: "server"}[s.Link.Side]
		}
		out[side] = append(out[side], s)
	}
	for _, of := range out {
		slices.SortStableFunc(of, func(a, b *spans.Span) int { return int(a.Begun - b.Begun) })
	}
	return out
}

func hashes(all []values.Blob) (text []string) {
	for _, b := range all {
		text = append(text, fmt.Sprintf("%x %d", b.Hash[:4], b.Size))
	}
	return text
}

// TestBodies: of a call that is traced it is known which blobs it carries, the same ones wherever they go; and a handler tells which of its calls' answers it has used.
func TestBodies(t *testing.T) {
	for way, opts := range map[string][]grpc.DialOption{"shm": nil, "unix-stream": {WithoutSharedMemory()}} {
		for _, size := range []int{2_000, 300_000} { // which is lent
			t.Run(fmt.Sprint(way, " ", size), func(t *testing.T) { testBodies(t, size, opts) })
		}
	}
}

func testBodies(t *testing.T, size int, opts []grpc.DialOption) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &asks{do: parroting}), opts...)
	client := dialTest(t, serveUnix(t, &asks{do: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		for _, ask := range []*pb.SimpleRequest{says("nothing"), says("price-1"), says("re-price-1", req.GetPayload().GetBody()...)} {
			if _, err := behind.UnaryCall(ctx, ask); err != nil {
				return nil, err
			}
		}
		return &pb.SimpleResponse{Username: "done-1"}, nil
	}}), opts...)
	take := tracing(t)
	if _, err := client.UnaryCall(testContext(t), says("order-1", bytes.Repeat([]byte("picture "), size/8)...)); err != nil {
		t.Fatal(err)
	}
	got := bodiesOf(take(8))
	first, children := got["client"][0], got["client"][1:]
	if len(first.Bodies.Request) != 1 || first.Bodies.Request[0].Size != size || len(first.Bodies.Response) != 0 || !slices.Equal(hashes(first.Bodies.Request), hashes(children[2].Bodies.Request)) || len(children[1].Bodies.Request) > 0 {
		t.Errorf("%v, then %v", hashes(first.Bodies.Request), hashes(children[2].Bodies.Request))
	}
	i := slices.IndexFunc(got["server"], func(s *spans.Span) bool { return s.Parent == first.ID })
	told := fmt.Sprintf("%+v", got["server"][i].Bodies.Told)
	want := fmt.Sprintf("%+v", []values.Told{{Span: children[0].ID, Looked: true}, {Span: children[1].ID, Looked: true, Used: true}, {Span: children[2].ID, Looked: true, Uses: []uint64{children[1].ID}}})
	if told != want {
		t.Errorf("told %s\nwant %s", told, want)
	}
}

// TestBodiesUnseen: of a call that is compressed nothing is told, and where a handler makes calls that nobody can look at, no answer is said to be unused.
func TestBodiesUnseen(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &asks{do: parroting}))
	var how func(ctx context.Context) error
	client := dialTest(t, serveUnix(t, &asks{do: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "done-1"}, how(ctx)
	}}))
	take := tracing(t)
	for name, c := range map[string]struct {
		how   func(ctx context.Context) error
		spans int
		told  string
	}{
		"compressed": {func(ctx context.Context) error {
			_, err := behind.UnaryCall(ctx, says("price-1", make([]byte, 2000)...), grpc.UseCompressor(gzip.Name))
			return err
		}, 4, "[false true]"},
		"compressed after another": {func(ctx context.Context) error {
			if _, err := behind.UnaryCall(ctx, says("price-1")); err != nil {
				return err
			}
			_, err := behind.UnaryCall(ctx, says("price-2"), grpc.UseCompressor(gzip.Name))
			return err
		}, 6, "[true true]"},
		"a stream": {func(ctx context.Context) error {
			if _, err := behind.UnaryCall(ctx, says("price-1")); err != nil {
				return err
			}
			s, err := behind.FullDuplexCall(ctx)
			if err == nil {
				_ = s.CloseSend()
				_, _ = s.Recv()
			}
			return err
		}, 6, "[true true]"},
		"a call that the user traces": {func(ctx context.Context) error {
			if _, err := behind.UnaryCall(ctx, says("price-1")); err != nil {
				return err
			}
			_, err := behind.UnaryCall(metadata.AppendToOutgoingContext(ctx, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-00"), says("price-2"))
			return err
		}, 4, "[true true]"},
		"it fails": {func(ctx context.Context) error {
			_, _ = behind.UnimplementedCall(ctx, &pb.Empty{})
			return nil
		}, 4, "[false false]"},
	} {
		how = c.how
		if _, err := client.UnaryCall(testContext(t), says("order-1")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, s := range take(c.spans) {
			if s.Bodies == nil || len(s.Bodies.Told) == 0 {
				continue
			}
			if one := s.Bodies.Told[0]; fmt.Sprint([]bool{one.Looked, one.Used}) != c.told {
				t.Errorf("%s: %+v", name, s.Bodies.Told)
			}
		}
	}
}

// TestBodiesNoted: of calls that the user traces and records there are notes, by the user's IDs, and of no other.
func TestBodiesNoted(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &asks{do: parroting}))
	with := func(ctx context.Context, parent string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "traceparent", parent)
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-"
	client := dialTest(t, serveUnix(t, &asks{do: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		parent := strings.Replace(md["traceparent"][0], "0000000000000001", "0000000000000002", 1)
		_, err := behind.UnaryCall(with(ctx, parent), says("price-1", req.GetPayload().GetBody()...))
		return &pb.SimpleResponse{Username: "done-1"}, err
	}}))
	take := tracing(t)
	for _, parent := range []string{trace + "0000000000000001-00", trace + "0000000000000001", "ff" + trace[2:] + "0000000000000001-01", trace + "0000000000000000-01", trace + "000000000000000x-01", "", strings.Repeat("-", 55)} {
		if _, err := client.UnaryCall(with(testContext(t), parent), says("order-1")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.UnaryCall(with(testContext(t), trace+"0000000000000001-01"), says("order-1", bytes.Repeat([]byte("picture "), 250)...)); err != nil {
		t.Fatal(err)
	}
	notes := bodiesOf(take(3))["note"]
	if len(notes) != 3 {
		t.Fatalf("%d notes", len(notes))
	}
	blobs, told := map[uint64][]string{}, ""
	for _, n := range notes {
		if fmt.Sprintf("%x", n.Trace) != trace[3:35] {
			t.Errorf("trace %x", n.Trace)
		}
		if blobs[n.ID] = append(blobs[n.ID], hashes(n.Bodies.Request)...); len(n.Bodies.Told) > 0 {
			told = fmt.Sprintf("%d: %+v", n.ID, n.Bodies.Told)
		}
	}
	if len(blobs[1]) != 1 || !slices.Equal(blobs[1], blobs[2]) || told != fmt.Sprintf("1: %+v", []values.Told{{Span: 2, Looked: true}}) {
		t.Errorf("blobs %v, told %s", blobs, told)
	}
}

// TestBodiesUnseenByUser: a handler whose call the user traces may make calls that are in no trace: they may use any answer.
func TestBodiesUnseenByUser(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &asks{do: parroting}))
	const parent = "00-0af7651916cd43dd8448eb211c80319c-000000000000000"
	client := dialTest(t, serveUnix(t, &asks{do: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		if _, err := behind.UnaryCall(metadata.AppendToOutgoingContext(ctx, "traceparent", parent+"2-01"), says("price-1")); err != nil {
			return nil, err
		}
		_, err := behind.UnaryCall(ctx, says("re-price-1"))
		return &pb.SimpleResponse{Username: "done-1"}, err
	}}))
	take := tracing(t)
	if _, err := client.UnaryCall(metadata.AppendToOutgoingContext(testContext(t), "traceparent", parent+"1-01"), says("order-1")); err != nil {
		t.Fatal(err)
	}
	told := ""
	for _, n := range bodiesOf(take(3))["note"] {
		if len(n.Bodies.Told) > 0 {
			told = fmt.Sprintf("%+v", n.Bodies.Told)
		}
	}
	if want := fmt.Sprintf("%+v", []values.Told{{Span: 2, Looked: true, Used: true}}); told != want {
		t.Errorf("told %s, want %s", told, want)
	}
}

// TestNotLookedAtFree: a served call whose bodies nobody looks at pays no memory for that, be it traced or not.
func TestNotLookedAtFree(t *testing.T) {
	tracing(t)
	msg := &message{data: []byte("asked")}
	for name, span := range map[string]*spans.Span{"untraced": nil, "traced": {Trace: spans.TraceID{0: 2, 15: 1}, ID: 1}} {
		s := &serverStream{cc: &callContext{conn: &serverConn{ctx: t.Context()}}, rec: serverRecord{arrived: 1, span: span}, desc: unaryDesc}
		if n := testing.AllocsPerRun(100, func() { s.seeRequest(msg) }); n != 0 || s.cc.handling.Load() != nil {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkBodies is what a call costs whose handler makes another one: not traced, one in five or so traced, and all traced with their bodies looked at.
func BenchmarkBodies(b *testing.B) {
	for _, size := range []int{0, 4000} {
		for _, how := range []string{"nothing", "traced", "looked at"} {
			b.Run(fmt.Sprint(how, " ", size), func(b *testing.B) {
				b.Setenv("STILE_DIR", b.TempDir())
				behind := dialTest(b, serveUnix(b, &asks{do: parroting}))
				client := dialTest(b, serveUnix(b, &asks{do: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					return behind.UnaryCall(ctx, req)
				}}))
				each := 5 * spans.Budget
				if how == "looked at" {
					each = 50
				}
				if how != "nothing" {
					traced.Start()
					b.Cleanup(traced.Stop)
				}
				ask := says("order-1", make([]byte, size)...)
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					if _, err := client.UnaryCall(b.Context(), ask); err != nil {
						b.Fatal(err)
					}
					if n++; n%each == 0 {
						traced.Take()
					}
				}
			})
		}
	}
}
