package tracefile

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/semconv"
)

// text is a JSON value that is a string, or can pass for one: numbers are written either way.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(t))
	}
	if s := string(b); s != "null" && (len(b) == 0 || b[0] != '{' && b[0] != '[') {
		*t = text(s)
	}
	return nil
}

func (t text) number() int64 {
	n, err := strconv.ParseInt(string(t), 10, 64)
	if err != nil { // 1.5e18, or beyond what time has
		f, _ := strconv.ParseFloat(string(t), 64)
		if f > 0 && f < 1<<62 {
			return int64(f)
		}
		return 0
	}
	return n
}

// OTLP JSON.
type otlpResource struct {
	Resource struct {
		Attributes []otlpAttribute `json:"attributes"`
	} `json:"resource"`
	ScopeSpans   []otlpScope `json:"scopeSpans"`
	LibrarySpans []otlpScope `json:"instrumentationLibrarySpans"` // before 0.18
}

type otlpScope struct {
	Scope struct {
		Name text `json:"name"`
	} `json:"scope"`
	Spans []otlpSpan `json:"spans"`
}

type otlpSpan struct {
	TraceID    string          `json:"traceId"`
	SpanID     string          `json:"spanId"`
	ParentID   string          `json:"parentSpanId"`
	Name       string          `json:"name"`
	Kind       text            `json:"kind"`
	Start      text            `json:"startTimeUnixNano"`
	End        text            `json:"endTimeUnixNano"`
	Attributes []otlpAttribute `json:"attributes"`
	Links      []struct {
		TraceID string `json:"traceId"`
		SpanID  string `json:"spanId"`
	} `json:"links"`
	Status struct {
		Code text `json:"code"`
	} `json:"status"`
}

type otlpAttribute struct {
	Key   string `json:"key"`
	Value struct {
		String text `json:"stringValue"`
		Int    text `json:"intValue"`
		Double text `json:"doubleValue"`
		Bool   text `json:"boolValue"`
	} `json:"value"`
}

func (a *otlpAttribute) text() string {
	v := &a.Value
	return string(v.String + v.Int + v.Double + v.Bool) // one of them
}

func (r *reader) otlp(rs *otlpResource) error {
	var of semconv.Facts
	for i := range rs.Resource.Attributes {
		of.Set(rs.Resource.Attributes[i].Key, rs.Resource.Attributes[i].text())
	}
	for _, scope := range append(rs.ScopeSpans, rs.LibrarySpans...) {
		for i := range scope.Spans {
			s := &scope.Spans[i]
			facts := of
			for j := range s.Attributes {
				facts.Set(s.Attributes[j].Key, s.Attributes[j].text())
			}
			out := routemap.Span{
				Trace: hexID(s.TraceID), ID: routemap.SpanID(hexID(s.SpanID)), Parent: routemap.SpanID(hexID(s.ParentID)), Kind: semconv.Kind(string(s.Kind)), Name: s.Name,
				Start: s.Start.number(), End: s.End.number(), Counted: scope.Scope.Name == HubScope,
			}
			for _, l := range s.Links[:min(len(s.Links), maxLinks)] {
				out.Links = append(out.Links, routemap.Link{Trace: hexID(l.TraceID), ID: routemap.SpanID(hexID(l.SpanID))})
			}
			if s.Status.Code == "2" || strings.EqualFold(string(s.Status.Code), "STATUS_CODE_ERROR") {
				out.Class = routemap.ClassError
			}
			facts.Apply(&out)
			why := ""
			if r.strict {
				why = s.wrongIDs()
			}
			if err := r.give(out, why); err != nil {
				return err
			}
		}
	}
	return nil
}

// wrongIDs says what is wrong with IDs that are there and are not as OTLP has them in JSON: hex, in digits of either case.
func (s *otlpSpan) wrongIDs() string {
	if wrongLength(s.TraceID, 32) || wrongLength(s.SpanID, 16) || wrongLength(s.ParentID, 16) {
		return WrongID
	}
	if _, err := hex.DecodeString(s.TraceID + s.SpanID + s.ParentID); err != nil {
		return NoHex
	}
	return ""
}

// hexID is an ID in hex: some write it in base64, as protobuf's JSON has bytes. One of zeros is none.
func hexID(id string) string {
	if n := len(id); n == 24 || n == 12 {
		if b, err := base64.StdEncoding.DecodeString(id); err == nil {
			id = hex.EncodeToString(b)
		}
	}
	if strings.Trim(id, "0") == "" {
		return ""
	}
	return strings.ToLower(id)
}

// Jaeger's JSON, as its HTTP API and its UI have it.
type jaegerTrace struct {
	Spans     []jaegerSpan             `json:"spans"`
	Processes map[string]jaegerProcess `json:"processes"`
}

type jaegerProcess struct {
	Service string      `json:"serviceName"`
	Tags    []jaegerTag `json:"tags"`
}

type jaegerSpan struct {
	TraceID    string `json:"traceID"`
	SpanID     string `json:"spanID"`
	ParentID   string `json:"parentSpanID"` // of old ones
	Name       string `json:"operationName"`
	References []struct {
		Type    string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	} `json:"references"`
	Start     text           `json:"startTime"` // µs
	Duration  text           `json:"duration"`  // µs
	Tags      []jaegerTag    `json:"tags"`
	ProcessID string         `json:"processID"`
	Process   *jaegerProcess `json:"process"`
}

type jaegerTag struct {
	Key   string `json:"key"`
	Value text   `json:"value"`
}

func (r *reader) jaeger(t *jaegerTrace) error {
	for i := range t.Spans {
		s := &t.Spans[i]
		p := t.Processes[s.ProcessID]
		if p.Service == "" && s.Process != nil {
			p = *s.Process
		}
		var facts semconv.Facts
		for _, tag := range append(s.Tags[:len(s.Tags):len(s.Tags)], p.Tags...) {
			facts.Set(tag.Key, string(tag.Value))
		}
		start := s.Start.number() * 1000
		out := routemap.Span{
			Trace: s.TraceID, ID: routemap.SpanID(s.SpanID), Parent: routemap.SpanID(s.ParentID), Service: p.Service, Name: s.Name,
			Start: start, End: start + s.Duration.number()*1000,
		}
		for _, ref := range s.References {
			id := routemap.SpanID(ref.SpanID)
			switch {
			case ref.TraceID != "" && ref.TraceID != s.TraceID:
				out.Links = append(out.Links, routemap.Link{Trace: ref.TraceID, ID: id})
			case out.Parent == 0 || ref.Type == "CHILD_OF" && out.Follows:
				out.Parent, out.Follows = id, ref.Type == "FOLLOWS_FROM"
			}
		}
		facts.Apply(&out)
		if out.Start == 0 && out.End > 0 {
			out.Start = 1 // files for tests begin with the epoch
		}
		if err := r.give(out, ""); err != nil {
			return err
		}
	}
	return nil
}

// Zipkin's JSON of version 2.
type zipkinSpan struct {
	TraceID   *string         `json:"traceId"` // nil: it is no span
	ID        string          `json:"id"`
	ParentID  string          `json:"parentId"`
	Kind      text            `json:"kind"`
	Name      string          `json:"name"`
	Timestamp text            `json:"timestamp"` // µs
	Duration  text            `json:"duration"`  // µs
	Local     zipkinEndpoint  `json:"localEndpoint"`
	Remote    zipkinEndpoint  `json:"remoteEndpoint"`
	Tags      map[string]text `json:"tags"`
}

type zipkinEndpoint struct {
	Service string `json:"serviceName"`
	IPv4    string `json:"ipv4"`
	IPv6    string `json:"ipv6"`
	Port    text   `json:"port"`
}

func (r *reader) zipkin(s *zipkinSpan) error {
	var facts semconv.Facts
	for k, v := range s.Tags {
		if k == "error" {
			v = "true" // whatever it says
		}
		facts.Set(k, string(v))
	}
	start := s.Timestamp.number() * 1000
	out := routemap.Span{
		Trace: *s.TraceID, ID: routemap.SpanID(s.ID), Parent: routemap.SpanID(s.ParentID), Kind: semconv.Kind(string(s.Kind)), Service: s.Local.Service, Host: s.Local.IPv4 + s.Local.IPv6,
		Name: s.Name, Start: start, End: start + s.Duration.number()*1000,
	}
	if out.Kind == routemap.Client || out.Kind == routemap.Producer || out.Kind == routemap.Consumer {
		if out.Peer = s.Remote.Service; out.Peer != "" {
			out.PeerKind = routemap.External
		}
	}
	facts.Apply(&out)
	return r.give(out, "")
}
