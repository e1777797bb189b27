package hub

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stile-ipc/stile/hub/hubpb"
)

const (
	// maxReportParts is how many messages of protobuf are in a report.
	maxReportParts = 800_000
	// partBytes is what one takes when it is decoded, beside what it says. As it comes an empty one has 2 bytes.
	partBytes = 150
)

// mostParts is how many there are of what is repeated in a report.
var mostParts = map[protoreflect.FullName]int{
	"stile.hub.v1.ReportRequest.routes":   maxReportRoutes,
	"stile.hub.v1.ReportRequest.events":   maxReportEvents,
	"stile.hub.v1.ReportRequest.spans":    maxReportSpans,
	"stile.hub.v1.ReportRequest.samples":  maxReportRuns,
	"stile.hub.v1.ReportRequest.policies": maxReportPolicies,
	"stile.hub.v1.ReportRequest.queues":   maxReportQueues,
	"stile.hub.v1.Process.listens":        maxListens,
	"stile.hub.v1.Policy.controls":        maxReportControls,
	"stile.hub.v1.Queue.groups":           maxReportGroups,
}

// readReport decodes a report and checks it.
func readReport(body []byte) (*hubpb.ReportRequest, error) {
	r := new(hubpb.ReportRequest)
	counted := parts{of: map[protoreflect.FullName]int{}}
	if err := counted.count(body, r.ProtoReflect().Descriptor()); err != nil {
		return nil, err
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, r); err != nil {
		return nil, err
	}
	return r, checkReport(r)
}

// parts is how many messages are in one that is not decoded yet.
type parts struct {
	all int
	of  map[protoreflect.FullName]int // of mostParts
}

// count counts what is in the bytes of a message.
func (p *parts) count(b []byte, is protoreflect.MessageDescriptor) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		value := b[:n]
		b = b[n:]
		field := is.Fields().ByNumber(number)
		if kind != protowire.BytesType || field == nil {
			continue
		}
		if most, known := mostParts[field.FullName()]; known {
			if p.of[field.FullName()]++; p.of[field.FullName()] > most {
				return fmt.Errorf("more than %d %s", most, field.Name())
			}
		}
		if field.Message() == nil {
			continue
		}
		if p.all++; p.all > maxReportParts {
			return fmt.Errorf("more than %d messages within it", maxReportParts)
		}
		within, _ := protowire.ConsumeBytes(value)
		if err := p.count(within, field.Message()); err != nil {
			return err
		}
	}
	return nil
}
