package stile

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// codecV2Probe is a codec of the second generation.
type codecV2Probe struct{ name string }

func (codecV2Probe) Marshal(any) (mem.BufferSlice, error) { return nil, nil }
func (codecV2Probe) Unmarshal(mem.BufferSlice, any) error { return nil }
func (c codecV2Probe) Name() string                       { return c.name }

func init() {
	encoding.RegisterCodec(codecProbe{"stile-v1"})
	encoding.RegisterCodecV2(codecV2Probe{"stile-v2"})
}

// callProof builds an option and tells whether the callInfo shows it.
type callProof struct {
	opts []grpc.CallOption // by value and by pointer
	seen func(*callInfo) bool
}

// both returns the option by value and by pointer.
func both[T grpc.CallOption](o T) []grpc.CallOption {
	p, ok := any(&o).(grpc.CallOption)
	if !ok {
		panic("a pointer to the option is no option")
	}
	return []grpc.CallOption{o, p}
}

func callOptionProofs() map[string]callProof {
	var (
		md   metadata.MD
		p    peer.Peer
		done = func(error) {}
	)
	nothing := func(c *callInfo) bool {
		return c.failFast && !c.failFastSet && len(c.header)+len(c.trailer)+len(c.peer)+len(c.onFinish) == 0 && c.maxRecv == nil
	}
	return map[string]callProof{
		"HeaderCallOption":         {both(grpc.HeaderCallOption{HeaderAddr: &md}), func(c *callInfo) bool { return c.header[0] == &md }},
		"TrailerCallOption":        {both(grpc.TrailerCallOption{TrailerAddr: &md}), func(c *callInfo) bool { return c.trailer[0] == &md }},
		"PeerCallOption":           {both(grpc.PeerCallOption{PeerAddr: &p}), func(c *callInfo) bool { return c.peer[0] == &p }},
		"FailFastCallOption":       {both(grpc.FailFastCallOption{FailFast: false}), func(c *callInfo) bool { return !c.failFast && c.failFastSet }},
		"OnFinishCallOption":       {both(grpc.OnFinishCallOption{OnFinish: done}), func(c *callInfo) bool { return len(c.onFinish) == 1 }},
		"MaxRecvMsgSizeCallOption": {both(grpc.MaxRecvMsgSizeCallOption{MaxRecvMsgSize: 7}), func(c *callInfo) bool { return *c.maxRecv == 7 }},
		"MaxSendMsgSizeCallOption": {both(grpc.MaxSendMsgSizeCallOption{MaxSendMsgSize: 7}), func(c *callInfo) bool { return *c.maxSend == 7 }},
		"PerRPCCredsCallOption":    {both(grpc.PerRPCCredsCallOption{Creds: credsProbe{}}), func(c *callInfo) bool { return c.creds == credsProbe{} }},
		"CompressorCallOption":     {both(grpc.CompressorCallOption{CompressorType: "gzip"}), func(c *callInfo) bool { return c.compressor == "gzip" && c.compressorV1 != nil }},
		"ContentSubtypeCallOption": {both(grpc.ContentSubtypeCallOption{ContentSubtype: "stile-v1"}), func(c *callInfo) bool { return c.contentSubtype == "stile-v1" }},
		"ForceCodecCallOption":     {both(grpc.ForceCodecCallOption{Codec: codecProbe{"X"}}), func(c *callInfo) bool { return c.contentSubtype == "x" }},
		"ForceCodecV2CallOption":   {both(grpc.ForceCodecV2CallOption{CodecV2: codecV2Probe{"Y"}}), func(c *callInfo) bool { return c.codec == messageCodec(codecV2Probe{"Y"}) && c.contentSubtype == "y" }},
		"CustomCodecCallOption": {both(grpc.CustomCodecCallOption{Codec: codecProbe{"X"}}), func(c *callInfo) bool {
			return c.contentSubtype == "" && c.codec == messageCodec(codecBridge{codecProbe{"X"}})
		}},
		"MaxRetryRPCBufferSizeCallOption": {both(grpc.MaxRetryRPCBufferSizeCallOption{MaxRetryRPCBufferSize: 7}), nothing},
		"StaticMethodCallOption":          {both(grpc.StaticMethodCallOption{}), nothing},
		"EmptyCallOption":                 {both(grpc.EmptyCallOption{}), nothing},
	}
}

// laterCallOptions came after the oldest grpc-go this builds with; applyNewer
// takes them by name, and TestNewerCallOptions proves it where they exist.
var laterCallOptions = []string{"AuthorityOverrideCallOption", "acceptCompressorsCallOption"}

func TestEveryCallOption(t *testing.T) {
	proofs := callOptionProofs()
	for _, name := range callOptionTypes(t) {
		t.Run(name, func(t *testing.T) {
			if slices.Contains(laterCallOptions, name) {
				return
			}
			p, ok := proofs[name]
			if !ok {
				t.Fatalf("grpc-go v%s has a call option that is not handled: %s", grpc.Version, name)
			}
			for _, o := range p.opts {
				var c callInfo
				if err := readCallOptions([]grpc.CallOption{o}, &c); err != nil {
					t.Errorf("%T: %v", o, err)
				} else if !p.seen(&c) || c.codec == nil {
					t.Errorf("%T is not seen in %+v", o, &c)
				}
			}
		})
	}
}

type (
	silentOption   struct{ grpc.EmptyCallOption }
	deepSilent     struct{ silentOption }
	wrappedOption  struct{ grpc.CallOption }
	hiddenOption   struct{ wrappedOption }
	option         interface{ grpc.CallOption }
	sealedOption   struct{ option }
	embeddedHeader struct{ grpc.HeaderCallOption }
	shallowWins    struct {
		grpc.EmptyCallOption
		DeepOption
	}
	DeepOption struct{ grpc.CallOption }
)

func TestForeignCallOptions(t *testing.T) {
	var md metadata.MD
	for _, o := range []grpc.CallOption{silentOption{}, &silentOption{}, deepSilent{}, &deepSilent{}, shallowWins{}} {
		var c callInfo
		if err := readCallOptions([]grpc.CallOption{o, o}, &c); err != nil || len(c.header) > 0 {
			t.Errorf("%T: %v", o, err)
		}
	}
	for _, o := range []grpc.CallOption{
		wrappedOption{grpc.Header(&md)}, &wrappedOption{grpc.Header(&md)}, wrappedOption{wrappedOption{grpc.Header(&md)}},
		hiddenOption{wrappedOption{grpc.Header(&md)}},
		embeddedHeader{grpc.HeaderCallOption{HeaderAddr: &md}}, &embeddedHeader{grpc.HeaderCallOption{HeaderAddr: &md}},
	} {
		var c callInfo
		if err := readCallOptions([]grpc.CallOption{o}, &c); err != nil || len(c.header) != 1 || c.header[0] != &md {
			t.Errorf("%T: %v, %d headers", o, err, len(c.header))
		}
	}
	var none *wrappedOption
	for _, o := range []grpc.CallOption{sealedOption{grpc.Header(&md)}, none, wrappedOption{}, nil} {
		var c callInfo
		err := readCallOptions([]grpc.CallOption{o}, &c)
		if code := status.Code(err); code != codes.Unimplemented && code != codes.Internal {
			t.Errorf("%T: %v", o, err)
		}
	}
	var c callInfo
	err := readCallOptions([]grpc.CallOption{sealedOption{grpc.Header(&md)}}, &c)
	if err == nil || !strings.Contains(err.Error(), "sealedOption") {
		t.Errorf("the error does not name the type: %v", err)
	}
}

func TestCallOptionErrors(t *testing.T) {
	for _, c := range []struct {
		opt  grpc.CallOption
		code codes.Code
		msg  string
	}{
		{grpc.CallContentSubtype("stile-none"), codes.Internal, "no codec registered for content-subtype stile-none"},
		{grpc.UseCompressor("stile-none"), codes.Internal, `grpc: Compressor is not installed for requested grpc-encoding "stile-none"`},
	} {
		var info callInfo
		err := readCallOptions([]grpc.CallOption{c.opt}, &info)
		if st := status.Convert(err); st.Code() != c.code || st.Message() != c.msg {
			t.Errorf("%v, want %v %s", err, c.code, c.msg)
		}
		// The real thing says the same.
		cc := newTestClient(t, insecureOption())
		want := cc.Invoke(t.Context(), "/a/b", nil, nil, c.opt)
		if status.Convert(want).Message() != c.msg || status.Code(want) != c.code {
			t.Errorf("grpc-go says %v", want)
		}
	}
}

func TestCodecOfCall(t *testing.T) {
	for _, c := range []struct {
		opts    []grpc.CallOption
		codec   messageCodec
		subtype string
	}{
		{nil, encoding.GetCodecV2(proto.Name), ""},
		{[]grpc.CallOption{grpc.CallContentSubtype("PROTO")}, encoding.GetCodecV2(proto.Name), "proto"},
		{[]grpc.CallOption{grpc.CallContentSubtype("stile-v2")}, codecV2Probe{"stile-v2"}, "stile-v2"},
		{[]grpc.CallOption{grpc.CallContentSubtype("stile-v1")}, bridgeV1(codecProbe{"stile-v1"}), "stile-v1"},
		{[]grpc.CallOption{grpc.CallContentSubtype("mine"), grpc.ForceCodec(codecProbe{"X"})}, bridgeV1(codecProbe{"X"}), "mine"},
		{[]grpc.CallOption{grpc.ForceCodec(codecProbe{"X"}), grpc.ForceCodecV2(codecV2Probe{"Y"})}, codecV2Probe{"Y"}, "y"},
	} {
		var info callInfo
		if err := readCallOptions(c.opts, &info); err != nil || info.codec != c.codec || info.contentSubtype != c.subtype {
			t.Errorf("%v: codec %v, subtype %q, %v", c.opts, info.codec, info.contentSubtype, err)
		}
	}
}

func TestIdentityIsNoCompressor(t *testing.T) {
	var c callInfo
	if err := readCallOptions([]grpc.CallOption{grpc.UseCompressor(encoding.Identity)}, &c); err != nil || c.compressorV1 != nil || c.compressor != "identity" {
		t.Errorf("%v, %q, %v", err, c.compressor, c.compressorV1)
	}
}

func TestCallInfoIsUsedAgain(t *testing.T) {
	var c callInfo
	var md metadata.MD
	all := []grpc.CallOption{
		grpc.WaitForReady(true), grpc.Header(&md), grpc.Header(&md), grpc.Trailer(&md), grpc.OnFinish(func(error) {}),
		grpc.MaxCallRecvMsgSize(1), grpc.UseCompressor("gzip"), grpc.PerRPCCredentials(credsProbe{}),
	}
	if err := readCallOptions(all, &c); err != nil || len(c.header) != 2 || c.failFast {
		t.Fatal(err, len(c.header))
	}
	if err := readCallOptions(nil, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.header)+len(c.trailer)+len(c.onFinish) > 0 || !c.failFast || c.failFastSet || c.maxRecv != nil || c.compressor != "" || c.compressorV1 != nil || c.creds != nil {
		t.Errorf("left over: %+v", &c)
	}
	if c.header[:1][0] != nil || c.onFinish[:1][0] != nil {
		t.Error("pointers of the last call are kept alive")
	}
}

func TestUsualOptionsAllocateNothing(t *testing.T) {
	var md, tr metadata.MD
	var p peer.Peer
	for _, opts := range [][]grpc.CallOption{nil, {grpc.Header(&md), grpc.Trailer(&tr), grpc.Peer(&p)}} {
		c := new(callInfo)
		n := testing.AllocsPerRun(100, func() {
			if err := readCallOptions(opts, c); err != nil {
				t.Error(err)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations for %d options", n, len(opts))
		}
	}
	// A fresh callInfo needs its own memory and no more.
	opts := []grpc.CallOption{grpc.Header(&md), grpc.Trailer(&tr), grpc.Peer(&p)}
	if n := testing.AllocsPerRun(100, func() { _ = readCallOptions(opts, new(callInfo)) }); n > 1 {
		t.Errorf("%v allocations with a fresh callInfo", n)
	}
}

// TestNewerCallOptions takes the options that this module cannot name from
// grpc-go itself: AcceptCompressors and CallAuthority by way of their types.
func TestNewerCallOptions(t *testing.T) {
	names := callOptionTypes(t)
	for _, name := range laterCallOptions {
		t.Logf("grpc-go v%s has %s: %v", grpc.Version, name, slices.Contains(names, name))
	}
	gzip := []string{" gzip ", "identity", "", "gzip"}
	var c callInfo
	if err := c.accept(reflect.ValueOf(gzip)); err != nil || !slices.Equal(c.acceptCompressors, []string{"gzip"}) {
		t.Errorf("%q, %v", c.acceptCompressors, err)
	}
	err := c.accept(reflect.ValueOf([]string{"stile-none"}))
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || st.Message() != `grpc: compressor "stile-none" is not registered` {
		t.Error(err)
	}
	if err := c.accept(reflect.ValueOf([]string(nil))); err != nil || c.acceptCompressors != nil {
		t.Errorf("%q, %v", c.acceptCompressors, err)
	}
	if err := c.applyNewer(grpc.EmptyCallOption{}, reflect.TypeFor[struct{}](), reflect.ValueOf(struct{}{})); err == nil || errors.Is(err, errWalk) {
		t.Error("an unknown option was taken")
	}
}
