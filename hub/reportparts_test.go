package hub

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stile-ipc/stile/hub/hubpb"
)

// TestReportBombs: of a report with more in it than there is room for nothing is decoded, however small it came.
func TestReportBombs(t *testing.T) {
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	many := func(number protowire.Number, n int) []byte { return bytes.Repeat(field(number, nil), n) }
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"routes":   {many(5, 1<<20), "more than 20000 routes"},
		"events":   {many(9, 1<<20), "more than 1000 events"},
		"spans":    {many(11, 1<<20), "more than 50000 spans"},
		"samples":  {many(13, 1<<20), "more than 8 samples"},
		"policies": {many(15, 1<<20), "more than 64 policies"},
		"queues":   {many(16, 1<<20), "more than 1000 queues"},
		"listens":  {field(1, many(8, 1<<20)), "more than 64 listens"},
		"controls": {field(15, many(10, 1<<20)), "more than 1000 controls"},
		"groups":   {field(16, many(11, 1<<20)), "more than 1000 groups"},
		"blobs":    {field(11, field(40, many(1, 1<<20))), "more than 800000 messages"},
		"codes":    {field(5, many(7, 1<<20)), "more than 800000 messages"},
		"cut":      {append(field(11, nil), 0x5a, 9), "unexpected EOF"},
	} {
		var err error
		if n := testing.AllocsPerRun(1, func() { _, err = readReport(c.body) }); n > 100 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", name, err, c.want)
		}
	}
}

// TestMostParts: all that is repeated in a report, its process, policies and queues has a bound before it is decoded, unless it is numbers.
func TestMostParts(t *testing.T) {
	bounded := map[protoreflect.FullName]bool{}
	for _, m := range []proto.Message{&hubpb.ReportRequest{}, &hubpb.Process{}, &hubpb.Policy{}, &hubpb.Queue{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if bounded[f.FullName()] = f.IsList(); f.IsList() && mostParts[f.FullName()] == 0 {
				t.Errorf("%s has no bound", f.FullName())
			}
		}
	}
	names := make([]string, 0, len(mostParts))
	for name := range mostParts {
		if !bounded[name] {
			names = append(names, string(name))
		}
	}
	if slices.Sort(names); len(names) > 0 {
		t.Errorf("bounds of what is not there: %v", names)
	}
}
